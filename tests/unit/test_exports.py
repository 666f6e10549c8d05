"""Exports, judged by other people's parsers: ffmpeg's demuxers, webvtt-py, pyannote.database and the csv module."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from fractions import Fraction
from itertools import pairwise

import av
import pytest
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Segment
from pyannote.database.util import load_rttm
from rich.cells import cell_len

from deployments.warnings import ResultWarning, WarningCode
from serve_app.exports.cues import LONGEST_S, SHORTEST_MS
from serve_app.exports.formats import export
from serve_app.exports.options import FORMAT_NAMES, ExportOptions
from serve_app.warning_sentences import sentence
from tests.support.fake_ml_server import result_for

JOB = "550e8400-e29b:41d4"
_NO_CHARACTER = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
FORGED = "\n\n2\n00:00:05,000 --> 00:00:06,000\nNOTE forged"
HOSTILE = ["-->", "--->", "<b>", "</v>", "&amp;", "&", "<v", "NOTE", "WEBVTT", "7", "\t", "a\r\nb", "\x1b[2J", "\x00"]
KOREAN = "안녕하세요. 오늘은 회의를 시작하기 전에 지난주에 이야기했던 내용을 다시 한번 확인하겠습니다. 질문 있으신가요?"


def written(result, name, names=None, **options) -> str:
    made = ExportOptions(format=name, **options)
    return export(json.dumps(result).encode(), made, job_id=JOB, names=names).decode()


def segment(start, said, *, speaker=0, word_s=0.3, gap_s=0.05):
    """A segment whose words, a text or several strings, follow each other evenly."""
    words = said.split(" ") if isinstance(said, str) else said
    starts = [round(start + i * (word_s + gap_s), 3) for i in range(len(words))]
    timed = [
        {"word": word, "start": start, "end": round(start + word_s, 3)}
        for word, start in zip(words, starts, strict=True)
    ]
    return {
        "start_time": start,
        "end_time": timed[-1]["end"],
        "speaker": {"speaker_id": f"SPEAKER_{speaker:02d}"},
        "text": " ".join(words),
        "words": timed,
    }


def of(*segments):
    return {"text": " ".join(segment["text"] for segment in segments), "segments": list(segments)}


def by_ffmpeg(text: str, name: str) -> list[tuple[int, int, str]]:
    """Start and end in milliseconds, and text, as a player's demuxer finds them."""
    if not text.removeprefix("WEBVTT").strip():
        return []  # it takes a file without cues for none
    with av.open(io.BytesIO(text.encode()), format={"srt": "srt", "vtt": "webvtt"}[name]) as file:
        packets = [packet for packet in file.demux(file.streams[0]) if packet.size]
        assert file.streams[0].time_base == Fraction(1, 1000)
        return [(packet.pts, packet.pts + packet.duration, bytes(packet).decode()) for packet in packets]


def by_webvtt(text: str, name: str) -> list[tuple[int, int, str]]:
    """The same, by another parser; WebVTT is read strictly."""
    if name == "srt":
        found = webvtt.from_buffer(io.StringIO(text), format="srt").captions if text else []
    else:
        found = webvtt.WebVTT.from_string(text, strict=True).captions
    return [(in_ms(caption.start), in_ms(caption.end), caption.raw_text) for caption in found]


def in_ms(clock: str) -> int:
    hours, minutes, seconds = clock.split(":")
    return round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1000)


def read(text: str, name: str) -> list[tuple[int, int, str]]:
    """What two parsers agree on."""
    found = by_ffmpeg(text, name)
    assert [cue[:2] for cue in found] == [cue[:2] for cue in by_webvtt(text, name)]
    assert [cue[2] for cue in found] == [cue[2] for cue in by_webvtt(text, name)]
    return found


words = st.one_of(
    st.text("abcde", min_size=1, max_size=12),
    st.text("가나다라마", min_size=1, max_size=6),
    st.sampled_from(["Yes.", "네.", "Well,", "그래서,", "왜?", "123", "a&b", "<i>"]),
)
gaps = st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.0, 4.0])
lengths = st.sampled_from([0.0, 0.1, 0.3, 0.6, 2.0, 9.0])


@st.composite
def results(draw, words=words):
    """Results with pauses, words of no and of much length, words without times, and people who speak at once."""
    segments, now = [], 0.0
    for _ in range(draw(st.integers(0, 5))):
        start = now = max(0.0, round(now + draw(st.sampled_from([-3.0, -0.2, 0.0, 0.4, 5.0])), 3))
        timed = []
        for word in draw(st.lists(words, min_size=1, max_size=25)):
            end = round(now + draw(lengths), 3)
            timed.append({"word": word} | ({"start": now, "end": end} if draw(st.integers(0, 9)) else {}))
            now = round(end + draw(gaps), 3)
        said = segment(start, [word["word"] for word in timed], speaker=len(segments))
        segments.append(said | {"end_time": now, "words": timed})
    return of(*segments)


options = st.fixed_dictionaries({"line_length": st.integers(20, 60), "lines_per_cue": st.integers(1, 3)})
quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@quick
@given(results(), options, st.sampled_from(["srt", "vtt"]), st.booleans())
def test_cues_keep_their_promises(result, options, name, speakers):
    """In order, never overlapping, long enough to be seen, at most 7 s; lines as long and as many as asked for."""
    cues = read(written(result, name, speakers=speakers, **options), name)
    for start, end, text in cues:
        lines = html.unescape(re.sub("^<v [^>]*>", "", text)).split("\n") if name == "vtt" else text.split("\n")
        assert SHORTEST_MS <= end - start <= LONGEST_S * 1000
        assert len(lines) <= options["lines_per_cue"]
        assert all(0 < cell_len(line) <= options["line_length"] for line in lines), lines
    assert all(before[1] <= after[0] for before, after in pairwise(cues))


@quick
@given(results(), options)
def test_every_word_is_said_once_by_its_speaker(result, options):
    """Word by word, in order, none cut: a word is never longer than a line here."""
    cues = read(written(result, "vtt", **options), "vtt")
    for said in result["segments"]:
        voice = f"<v {said['speaker']['speaker_id']}>"
        own = [html.unescape(text.removeprefix(voice)) for _, _, text in cues if text.startswith(voice)]
        assert " ".join(own).split() == said["text"].split()


@quick
@given(results(st.one_of(words, st.text(min_size=1, max_size=90), st.sampled_from([*HOSTILE, FORGED]))), options)
def test_any_text_survives(result, options):
    """Words of any characters and longer than lines: all formats can be read, and no visible character is lost."""
    said = _NO_CHARACTER.sub("", "".join(segment["text"] for segment in result["segments"]))
    heard, forms = {}, {"srt": by_ffmpeg, "vtt": by_webvtt}
    for name, parser in forms.items():
        heard[name] = parser(written(result, name, speakers=False, **options), name)
    text = "".join(html.unescape(" ".join(text for _, _, text in heard["vtt"])).split())
    assert sorted(text) == sorted(said)  # people who speak at once are interleaved
    assert text == said or len(result["segments"]) > 1
    assert [cue[:2] for cue in heard["srt"]] == [cue[:2] for cue in heard["vtt"]]


def cell(text):
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


@quick
@given(results())
def test_turns_and_tables(result):
    """RTTM equals pyannote's own union of segments; TSV and text have a line for each segment."""
    said = [segment for segment in result["segments"] if segment["text"].strip()]
    expected = Annotation()
    for i, one in enumerate(said):
        expected[Segment(one["start_time"], one["end_time"]), i] = one["speaker"]["speaker_id"]
    assert turns(written(result, "rttm")) == turns_of(expected.support())
    rows = list(csv.reader(io.StringIO(written(result, "tsv")), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == ["start", "end", "text", "speaker"]
    assert [[int(row[0]) / 1000, int(row[1]) / 1000, *row[2:]] for row in rows[1:]] == [
        [one["start_time"], one["end_time"], cell(one["text"]), one["speaker"]["speaker_id"]] for one in said
    ]
    assert written(result, "txt", speakers=False).splitlines() == [one["text"] for one in said]


def turns(rttm):
    found = load_rttm(io.StringIO(rttm)) if rttm else {}
    assert set(found) <= {JOB}
    return turns_of(found.get(JOB, Annotation()))


def turns_of(annotation):
    return sorted(
        (round(turn.start, 3), round(turn.end, 3), speaker)
        for turn, _, speaker in annotation.itertracks(yield_label=True)
    )


def texts(result, name="srt", **options):
    return [text for _, _, text in read(written(result, name, **options), name)]


def test_korean_is_broken_between_words():
    """A Hangul character takes two columns; sentences begin cues of their own; long ones are cut into even parts."""
    cues = read(written(of(segment(1.0, KOREAN, word_s=0.5)), "srt", speakers=False, line_length=24), "srt")
    assert cues == [
        (1000, 1550, "안녕하세요."),
        (1550, 4250, "오늘은 회의를 시작하기\n전에 지난주에"),
        (4300, 7000, "이야기했던 내용을 다시\n한번 확인하겠습니다."),
        (7050, 8100, "질문 있으신가요?"),
    ]


def test_speakers_take_turns_where_they_speak_at_once():
    """Cues follow the clock: the first ends where the second begins, and what was said afterwards comes afterwards."""
    first = "I was going to say that we could leave at seven or eight tomorrow morning"
    both = of(segment(0.0, first, word_s=0.5), segment(2.0, ["No,", "no."], speaker=1))
    assert read(written(both, "vtt"), "vtt") == [
        (0, 2000, "<v SPEAKER_00>I was going to say that we could leave"),
        (2000, 3000, "<v SPEAKER_01>No, no."),
        (4950, 8200, "<v SPEAKER_00>at seven or eight tomorrow morning"),
    ]
    at_once = of(*(segment(3.0, ["Yes."], speaker=i) for i in range(3)))
    assert [cue[:2] for cue in read(written(at_once, "srt"), "srt")] == [(3000, 3500), (3500, 4000), (4000, 5000)]


def test_cues_end_at_sentences_pauses_and_commas():
    """A short sentence stays with its neighbour, a pause always cuts, and a long sentence is cut at a comma."""
    said = segment(0.0, "Yes. I know that. It was in the paper yesterday.")
    assert texts(of(said), speakers=False) == ["Yes. I know that.", "It was in the paper yesterday."]
    for word in said["words"][3:]:
        word |= {"start": word["start"] + 2, "end": word["end"] + 2}
    paused = texts(of(said | {"end_time": said["end_time"] + 2}), speakers=False)
    assert paused == ["Yes. I know", "that. It was in the paper yesterday."]
    long = "When the meeting was over at last, everybody went down to the station and took the train"
    assert texts(of(segment(0.0, long, word_s=0.2)), speakers=False) == [
        "When the meeting was over at last,",
        "everybody went down to the\nstation and took the train",
    ]


def test_a_word_longer_than_a_line_is_cut():
    """Only such a word, at the line's end, and on one line only beside the speaker's name."""
    result = of(segment(0.0, ["short", "x" * 45, "short"], word_s=1.0))
    assert texts(result, line_length=20, lines_per_cue=3, speakers=False) == [
        "short\n" + "x" * 20,
        "x" * 20 + "\nxxxxx short",
    ]
    assert texts(of(segment(0.0, ["x" * 10], word_s=1.0)), line_length=20, lines_per_cue=1) == [
        "SPEAKER_00: xxxxxxxx",
        "SPEAKER_00: xx",
    ]


def test_chinese_and_japanese_have_no_spaces():
    """Their words are characters; the words of a mixed text keep its spaces."""
    assert texts(of(segment(0.0, [*"今日は晴れ", "and", "warm"])), speakers=False) == ["今日は晴れ and warm"]
    assert texts(of(segment(0.0, [*"今日は晴れです" * 2], word_s=0.1)), speakers=False, line_length=20) == [
        "今日は晴れです\n今日は晴れです"
    ]


def test_words_without_times_get_those_between_their_neighbours():
    """Evenly; and a segment without words is shown as a whole."""
    said = segment(0.0, ["one", "two", "three", "four", "five."])
    said |= {"words": [{"word": "one"}, {"word": "two"}, {"word": "three.", "start": 4.0}, {"word": "four"}]}
    said["end_time"] = 8.0
    assert read(written(of(said), "srt", speakers=False), "srt") == [(0, 6000, "one two three."), (6000, 8000, "four")]
    bare = of(segment(2.0, ["one", "two"], gap_s=0.7) | {"words": []})
    assert read(written(bare, "srt", speakers=False), "srt") == [(2000, 3300, "one two")]


def test_an_arrow_or_a_tag_in_a_text_is_text():
    """WebVTT escapes, SubRip cannot: there an arrow loses a dash. A speaker's name cannot break out either."""
    said = segment(0.0, ["a", "--->", "<b>", "&amp;", FORGED])
    said["speaker"]["speaker_id"] = "A>\n\n--> <b>"
    [line] = by_ffmpeg(written(of(said), "srt", speakers=False, line_length=200), "srt")
    assert line[2] == "a -> <b> &amp; 2 00:00:05,000 -> 00:00:06,000 NOTE forged"
    [line] = by_webvtt(written(of(said), "vtt", line_length=200), "vtt")
    assert line[2].startswith("<v A&gt;_--&gt;_&lt;b&gt;>a ---&gt; &lt;b&gt; &amp;amp; 2 00:00:05,000 --&gt;")
    assert by_ffmpeg(written(of(said), "vtt", line_length=200), "vtt")[0][2] == line[2]


@pytest.mark.parametrize("said", [[], [segment(0.0, ["\x00", "\n"])]])
def test_nothing_said_is_an_empty_file(said):
    """No segments, or none with a visible character: each format has its smallest valid form."""
    empty = {"srt": "", "vtt": "WEBVTT\n", "txt": "", "tsv": "start\tend\ttext\tspeaker\n", "rttm": ""}
    assert {name: written(of(*said), name) for name in empty} == empty
    assert by_webvtt(empty["vtt"], "vtt") == []


def test_a_segments_language_is_told_where_a_format_has_a_place_for_it():
    """WebVTT's own tag, which its parsers read, and a table's last column; nothing without it or elsewhere."""
    korean, english = segment(0.0, "안녕하세요 여러분"), segment(5.0, "Good <morning>")
    told, plain = of(korean | {"language": "ko"}, english | {"language": "en"}), of(korean, english)
    vtt = written(told, "vtt")
    assert "<v SPEAKER_00><lang ko>안녕하세요 여러분</lang>" in vtt
    assert "<lang en>Good &lt;morning&gt;</lang>" in vtt
    assert len(read(vtt, "vtt")) == 2
    shown = [[each.text for each in webvtt.WebVTT.from_string(written(of_, "vtt")).captions] for of_ in (told, plain)]
    assert shown[0] == shown[1]
    rows = list(csv.reader(io.StringIO(written(told, "tsv")), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row[-1] for row in rows] == ["language", "ko", "en"]
    for name in ("srt", "txt", "rttm"):
        assert written(told, name) == written(plain, name)
    assert not {"lang", "language"} & set(re.findall(r"\w+", written(plain, "vtt") + written(plain, "tsv")))


def test_the_other_formats():
    """JSON is the result to the byte; a turn goes on over touching segments; times pass the hour."""
    result = of(segment(3599.5, ["Hello", "there."]), segment(3600.15, ["Yes."]), segment(3601.0, ["네."], speaker=1))
    body = json.dumps(result, indent=3).encode()
    assert export(body, ExportOptions(format="json"), job_id=JOB) == body
    assert written(result, "rttm", speakers=False).splitlines() == [
        f"SPEAKER {JOB} 1 3599.500 0.950 <NA> <NA> SPEAKER_00 <NA> <NA>",
        f"SPEAKER {JOB} 1 3601.000 0.300 <NA> <NA> SPEAKER_01 <NA> <NA>",
    ]
    assert written(result, "txt") == "SPEAKER_00: Hello there.\nSPEAKER_00: Yes.\nSPEAKER_01: 네.\n"
    assert written(result, "tsv", speakers=False).splitlines()[1] == "3599500\t3600150\tHello there."
    assert "00:59:59,500 --> 01:00:00,150\n" in written(result, "srt")
    assert all(written(result_for("https://v/1.mp4"), name) for name in FORMAT_NAMES)


WARNED = {
    "warnings": ["x", "--> of\n\nan older release"],
    "warning_codes": [{"code": "LOOP_CUT", "count": 2}, {"code": "OF_TOMORROW"}],
}


@pytest.mark.parametrize("locale", ["ko", "en"])
def test_warnings_are_told_where_a_format_has_a_place_for_them(locale):
    """As comments of WebVTT and remarks before the text, in the asked language; nowhere unless asked for."""
    result = of(segment(1, "hello there")) | {"metadata": WARNED}
    loop = sentence(ResultWarning(code=WarningCode.LOOP_CUT, count=2), locale)
    for name in FORMAT_NAMES:
        bare, told = written(result, name), written(result, name, warnings=locale)
        if name == "vtt":
            assert told == bare.replace("WEBVTT\n", f"WEBVTT\n\nNOTE {loop}\n\nNOTE -> of an older release\n", 1)
            assert by_ffmpeg(told, name) == by_ffmpeg(bare, name)
            assert by_webvtt(told, name) == by_webvtt(bare, name)
        elif name == "txt":
            assert told == f"[{loop}]\n[--> of an older release]\n\n{bare}"
        else:
            assert told == bare
        assert written(of(segment(1, "hello")), name, warnings=locale) == written(of(segment(1, "hello")), name)


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+82 2 123", "-1", "@SUM(1)"])
def test_a_spreadsheet_takes_no_text_for_a_formula(text):
    """TSV: what would be computed when the table is opened begins with an apostrophe; other formats stay."""
    result = {"segments": [{"start_time": 0, "end_time": 1, "speaker": {"speaker_id": "A"}, "text": text, "words": []}]}
    assert written(result, "tsv").splitlines()[1].split("\t")[2] == f"'{text}"
    assert text in written(result, "txt")


NAMES = [
    "김철수",
    "Anna",
    "A --> B",
    "<b>&amp;",
    '"=1+1"',
    "=1+1",
    "-",
    "Dr. Anna-Maria van den Berg",
    "가" * 100,
    "a_b c",
    "<NA>",
]


@quick
@given(results(), options, st.lists(st.sampled_from(NAMES), max_size=4))
def test_names_stand_where_the_ids_stood(result, options, given):
    """Every format with names is the one with ids, for other parsers too; JSON is the result."""
    names = {f"SPEAKER_{number:02d}": name for number, name in enumerate(given)}
    said = [segment for segment in result["segments"] if segment["text"].strip()]
    callers = [names.get(one["speaker"]["speaker_id"], one["speaker"]["speaker_id"]) for one in said]
    assert written(result, "json", names) == json.dumps(result)
    bare, cues = (read(written(result, "vtt", each, **options), "vtt") for each in (None, names))
    assert [cue[:2] for cue in cues] == [cue[:2] for cue in bare]
    voices = [re.fullmatch("<v ([^>]+)>(.*)", cue[2], re.DOTALL) for cue in cues]
    assert {html.unescape(voice[1]) for voice in voices} <= set(callers)
    assert [voice[2] for voice in voices] == [re.sub("^<v [^>]+>", "", cue[2]) for cue in bare]
    for _, _, text in read(written(result, "srt", names, **options), "srt"):
        lines = text.split("\n")
        assert len(lines) <= options["lines_per_cue"]
        assert all(0 < cell_len(line) <= options["line_length"] for line in lines), lines
    rows = list(csv.reader(io.StringIO(written(result, "tsv", names)), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row[3] for row in rows[1:]] == [cell(caller) for caller in callers]
    assert written(result, "txt", names).splitlines() == [
        f"{caller}: {one['text']}" for caller, one in zip(callers, said, strict=True)
    ]
    expected = Annotation()
    for i, (one, caller) in enumerate(zip(said, callers, strict=True)):
        expected[Segment(one["start_time"], one["end_time"]), i] = re.sub('[ <>"]', "_", caller)
    assert turns(written(result, "rttm", names)) == turns_of(expected.support())


def test_two_ids_with_one_name_are_one_speaker():
    """Their touching segments are one turn; what the next one says is another's."""
    result = of(segment(1.0, ["Yes."]), segment(1.3, ["No."], speaker=1), segment(1.6, ["Oh."], speaker=2))
    names = {"SPEAKER_00": "김 철수", "SPEAKER_01": "김 철수"}
    assert written(result, "rttm", names).splitlines() == [
        f"SPEAKER {JOB} 1 1.000 0.600 <NA> <NA> 김_철수 <NA> <NA>",
        f"SPEAKER {JOB} 1 1.600 0.300 <NA> <NA> SPEAKER_02 <NA> <NA>",
    ]


def test_quotation_marks_of_a_name_hide_no_turns():
    """Tables of pandas, with which many read RTTM, would take all between two marks for one cell."""
    result = of(segment(1.0, ["Yes."]), segment(2.0, ["No."], speaker=1), segment(3.0, ["Oh."]))
    names = {"SPEAKER_00": 'Anna "', "SPEAKER_01": '"=1+1"'}
    assert [turn[2] for turn in turns(written(result, "rttm", names))] == ["Anna__", "_=1+1_", "Anna__"]


def test_a_name_that_is_wider_than_a_line_is_shortened():
    """Only before a subtitle's text: eight columns stay for that; a voice tag has it whole."""
    result, name = of(segment(1.0, ["Yes", "it", "is."])), "가나다라마바사아자차카타파하"
    names = {"SPEAKER_00": name}
    assert texts(result, names=names, line_length=20) == ["가나다라…:\nYes it is."]
    assert texts(result, names=names, line_length=37) == [f"{name[:-1]}…:\nYes it is."]
    assert texts(result, names=names, line_length=38) == [f"{name}:\nYes it is."]
    assert f"<v {name}>" in written(result, "vtt", names, line_length=20)
