from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.cli.progress_bar import ProgressBar
from serve_app.cli.render import (
    ReferenceLine,
    locale_of,
    mean_pitch_hz,
    mean_volume_db,
    render_result,
    word_error_rate,
    words_by_line,
)
from serve_app.cli.samples import all_samples, conversation, read_stm
from serve_app.warning_sentences import sentence
from tests.support.fake_ml_server import result_for
from tests.support.result_warnings import ONE_OF_EACH
from tests.support.screen import Screen

if TYPE_CHECKING:
    from deployments.warnings import ResultWarning

REFERENCE = (
    ReferenceLine(start_s=6.7, end_s=7.2, speaker="Diane", text="Hello?"),
    ReferenceLine(start_s=7.6, end_s=8.4, speaker="Sheila", text="Oh, hello there."),
)
WORDS = st.lists(st.sampled_from(["a", "b", "c", "don't", "one"]), max_size=12).map(" ".join)


def printed(result: dict[str, Any], **options: Any) -> str:
    """What a 120 column terminal without colours shows."""
    screen = Screen()
    render_result(result, screen, **options)
    return screen.text


def line_with(text: str, output: str) -> str:
    """The line of the output that holds `text`."""
    return next(line for line in output.splitlines() if text in line)


def test_a_segment_shows_who_when_what_and_how() -> None:
    """One row holds times, speaker, text, emotion, mean volume, and the mean pitch of its voiced words."""
    row = line_with("Hello there", printed(result_for("http://h/a.mp4")))
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["6.70 - 7.30", "SPEAKER_00", "Hello there", "happy 70%", "-22 dB", "210 Hz"]


def test_figures_and_warnings_are_shown() -> None:
    """Engine names, duration, stages and warnings are on the page."""
    output = printed(result_for("http://h/a.mp4?X-Amz-Signature=1"))
    assert line_with("engines", output).split() == ["engines", "fake-1"]
    assert line_with("file", output).split() == ["file", "a.mp4"]
    assert "extraction 0.5 s, transcription 1.0 s" in output
    assert "Warning: this is a fake" in output


def test_the_quality_is_one_line_in_the_terminals_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict with what speaks against the result; no line for results without it."""
    result = result_for("http://h/a.mp4")
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    assert "quality" not in printed(result)
    result["metadata"]["quality"] = {"verdict": "poor", "reasons": ["LOW_CONFIDENCE", "NEW"], "damaged_s": 0.0}
    shown = " ".join(line_with("quality", printed(result)).split())
    assert shown == "quality poor (the recogniser was unsure of its words, NEW)"
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")
    assert "나쁨 (인식기가 확신하지 못한 단어가 많습니다, NEW)" in printed(result)


@pytest.mark.parametrize("warning", ONE_OF_EACH, ids=lambda warning: warning.code)
def test_warnings_are_shown_in_the_language_of_the_terminal(
    warning: ResultWarning, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the amounts of their codes, and not as the server wrote them."""
    result = result_for("http://h/a.mp4")
    result["metadata"] |= {"warnings": ["x"], "warning_codes": [{"code": warning.code.value, **warning.amounts}]}
    for name, locale in (("ko_KR.UTF-8", "ko"), ("de_DE", "en")):
        monkeypatch.setenv("LC_ALL", name)
        shown = printed(result).partition("Warning: ")[2].partition("Transcript")[0]
        assert "".join(shown.split()) == "".join(sentence(warning, locale).split())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environment", "locale"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko"}, "ko"),
        ({"LANG": "kok_IN"}, "en"),
        ({"LANG": "ko_KR", "LC_MESSAGES": "C"}, "en"),
        ({"LANG": "C", "LC_MESSAGES": "C", "LC_ALL": "ko_KR.utf8"}, "ko"),
        ({"LANG": "ko_KR", "LC_ALL": ""}, "ko"),
    ],
    ids=str,
)
def test_the_language_of_a_terminal_is_as_posix_says(environment: dict[str, str], locale: str) -> None:
    """LC_ALL before LC_MESSAGES before LANG; empty ones do not count; Konkani is not Korean."""
    assert locale_of(environment) == locale


def test_a_minimal_result_is_shown_without_the_additions() -> None:
    """Only the contract's required fields: no emotion, no warnings, no `voiced`; and a result without speech."""
    result = result_for("http://h/a.mp4")
    for name in ("device", "stages", "warnings"):
        del result["metadata"][name]
    for segment in result["segments"]:
        del segment["emotion"], segment["confidence"]
        for word in segment["words"]:
            del word["voiced"], word["confidence"]
    cells = [cell.strip() for cell in line_with("Hello there", printed(result)).split("│")[1:-1]]
    assert cells[3:] == ["-", "-22 dB", "200 Hz"]
    assert "No speech" in printed(result | {"segments": [], "text": ""})


def test_control_characters_and_markup_reach_the_terminal_as_text() -> None:
    """A transcript cannot move the cursor or colour the page."""
    result = result_for("http://h/a.mp4")
    result["segments"][0]["text"] = "evil\x1b[2Jtext [red]x[/red]"
    output = printed(result)
    assert "\x1b" not in output
    assert "evil [2Jtext [red]x[/red]" in output


def test_the_reference_stands_beside_what_was_recognised() -> None:
    """Each recognised word is in the row of the reference line it was spoken in, under its speaker's name."""
    assert words_by_line(result_for("http://h/a.mp4"), REFERENCE) == [
        [("SPEAKER_00", "Hello"), ("SPEAKER_00", "there")],
        [("SPEAKER_01", "Oh"), ("SPEAKER_01", "hello")],
    ]
    output = printed(result_for("http://h/a.mp4"), reference=REFERENCE)
    cells = [cell.strip() for cell in line_with("Sheila", output).split("│")[1:-1]]
    assert cells == ["7.60 - 8.40", "Sheila Oh, hello there.", "SPEAKER_01 Oh hello"]
    assert "Word error rate 50%; 2 speakers found, 2 really spoke." in output


@settings(deadline=None)
@given(reference=WORDS.filter(bool), recognised=WORDS)
def test_word_error_rate_agrees_with_jiwer(reference: str, recognised: str) -> None:
    """The edit distance is the one that jiwer computes."""
    assert word_error_rate(reference, recognised) == pytest.approx(jiwer.wer(reference, recognised))


@pytest.mark.parametrize(
    ("reference", "recognised", "rate"),
    [("Hello, there!", "hello THERE", 0), ("", "", 0), ("...", "word", 1), ("a b c d", "a x c d e", 0.5)],
)
def test_word_error_rate_leaves_case_and_punctuation_out(reference: str, recognised: str, rate: float) -> None:
    """Constructed answers, the empty reference among them."""
    assert word_error_rate(reference, recognised) == rate


def test_means_leave_out_what_is_not_there() -> None:
    """Borrowed pitch does not count; without words there is nothing to show."""
    words = [
        {"volume_db": -10, "pitch_hz": 100, "voiced": False},
        {"volume_db": -20, "pitch_hz": 300, "voiced": True},
        {"volume_db": -30, "pitch_hz": 200},
    ]
    assert (mean_volume_db(words), mean_pitch_hz(words)) == (-20, 250)
    assert (mean_volume_db([]), mean_pitch_hz(words[:1])) == (None, None)


def test_progress_without_a_terminal_is_a_line_per_change() -> None:
    """A log gets each state once, with the place in the queue, and no escape codes."""
    screen = Screen()
    with ProgressBar(screen, title="a.mp4") as bar:
        for state in (
            {"progress": 0, "message": "Waiting", "queue_position": 3},
            {"progress": 0, "message": "Waiting", "queue_position": 3},
            {"progress": 45, "message": "Identifying [bold]"},
        ):
            bar.show(state)
    assert screen.text.splitlines() == [
        "a.mp4    0 %  Waiting (number 3 in the queue)",
        "a.mp4   45 %  Identifying [bold]",
    ]


def test_progress_on_a_terminal_draws_the_bar_and_the_message() -> None:
    """The live bar carries title, percentage and message."""
    screen = Screen(force_terminal=True)
    with ProgressBar(screen, title="a.mp4") as bar:
        bar.show({"progress": 45, "message": "Identifying [bold]"})
    output = screen.text
    for text in ("a.mp4", "45%", "Identifying [bold]", "━"):
        assert text in output


def test_the_bundled_conversation_is_found_with_its_reference() -> None:
    """Thirteen lines of Diane and Sheila, in order, within the 30 s; without importing pyannote."""
    sample = conversation()
    assert sample.audio.is_file()
    assert len(sample.reference) == 13
    assert {line.speaker for line in sample.reference} == {"Diane", "Sheila"}
    assert sample.reference[0] == ReferenceLine(start_s=6.68, end_s=7.16, speaker="Diane", text="Hello?")
    starts = [line.start_s for line in sample.reference]
    assert starts == sorted(starts)
    assert sample.reference[-1].end_s < 30


def test_every_sample_is_there_with_a_reference() -> None:
    """The demo's files are in the checkout."""
    for sample in all_samples():
        assert sample.audio.is_file()
        assert sample.reference


def test_stm_labels_and_comments_are_understood(tmp_path: Any) -> None:
    """NIST's form: comments, and an optional label before the text."""
    path = tmp_path / "x.stm"
    path.write_text(";; comment\nf 1 A 0.5 1.25 <o,f0,male> hello there\n\nf 1 B 2 3 yes\n")
    assert read_stm(path) == (
        ReferenceLine(start_s=0.5, end_s=1.25, speaker="A", text="hello there"),
        ReferenceLine(start_s=2.0, end_s=3.0, speaker="B", text="yes"),
    )


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet=string.printable + "\x1b\x9b\u202e", max_size=40))
def test_any_text_can_be_a_transcript(text: str) -> None:
    """Nothing that a recogniser writes breaks the page."""
    result = result_for("http://h/a.mp4")
    result["segments"][0]["text"] = text
    assert "\x1b" not in printed(result)
