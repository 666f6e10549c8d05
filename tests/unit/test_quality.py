"""`metadata.quality`: every figure by a made-up answer, every limit on both sides of its border."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import numpy as np
import pytest

import ml_server_client
from deployments.diarizer.protocol import Segmentation
from deployments.types import CHANNEL_GAP_S, FRAMES_PER_S, Segment, Span, Tracks, Word
from deployments.warnings import ResultWarning, WarningCode
from serve_app.pipeline import quality
from serve_app.pipeline.channels import Channels
from serve_app.pipeline.quality import LIMITS, Limit, Overlap
from serve_app.verdicts import REASONS, VERDICTS, Reason, Verdict, quality_line
from tests.support.process import ROOT

AUDIO_S = 100.0
SPEECH = (Span(start_s=10, end_s=40), Span(start_s=60, end_s=90))
GOOD = quality.Quality(
    damaged_s=0.0,
    clipped_share=0.0,
    snr_db=30.0,
    speech_share=0.6,
    wordless_share=0.0,
    overlap_share=0.0,
    mean_confidence=0.95,
    language_doubt=0.0,
    dropped_texts=0,
)


def tracks(*, speech_dbfs: float = -20.0, background_dbfs: float = -50.0, start_s: float = 0.0) -> Tracks:
    """Of `AUDIO_S`: speech at one level in `SPEECH`, another one beside it."""
    levels = np.full(round(AUDIO_S * FRAMES_PER_S), background_dbfs, np.float32)
    for span in SPEECH:
        levels[round(span.start_s * FRAMES_PER_S) : round(span.end_s * FRAMES_PER_S)] = speech_dbfs
    return Tracks(start_s=start_s, f0_hz=np.full(levels.size, np.nan, np.float32), level_dbfs=levels)


def said(*words: tuple[float, float | None]) -> Segment:
    """A segment of words of so many seconds and such a confidence."""
    spoken = tuple(Word(start_s=0, end_s=length_s, text="w", probability=sure) for length_s, sure in words)
    return Segment(start_s=0, end_s=1, speaker=0, words=spoken)


def reported(**changed: Any) -> dict[str, Any]:
    """The object of a good result, but for what is `changed`."""
    good: dict[str, Any] = {
        "audio_s": AUDIO_S,
        "channels": None,
        "speech": SPEECH,
        "tracks": tracks(),
        "overlap": Overlap(share=0.05),
        "segments": [said((100.0, 0.9))],
        "language_probability": 0.97,
        "warnings": (),
    }
    return quality.report(**good | changed)


def test_a_good_result() -> None:
    """Every figure is there, with three decimals, and nothing speaks against it."""
    assert reported(language_probability=0.98765, overlap=Overlap(share=0.05)) == {
        "verdict": "good",
        "reasons": [],
        "damaged_s": 0.0,
        "clipped_share": 0.0,
        "snr_db": pytest.approx(30.0, abs=0.01),
        "speech_share": 0.6,
        "wordless_share": 0.0,
        "overlap_share": 0.05,
        "mean_confidence": 0.9,
        "language_doubt": 0.012,
        "dropped_texts": 0,
    }


def test_what_is_not_known_is_left_out_and_speaks_for_nothing() -> None:
    """Without prosody, diarization, confidences and detection of the language there are the other figures."""
    found = reported(tracks=None, overlap=None, segments=[said((100.0, None))], language_probability=None)
    assert set(found) == {
        "verdict",
        "reasons",
        "damaged_s",
        "clipped_share",
        "speech_share",
        "wordless_share",
        "dropped_texts",
    }
    assert (found["verdict"], found["reasons"]) == ("good", [])
    assert "overlap_share" not in reported(overlap=Overlap(share=None))


def test_damage_gaps_and_missing_sound_add_up() -> None:
    """And what was clipped, dropped and uncertain is taken from its warnings; others count for nothing."""
    warnings = [
        ResultWarning(code=WarningCode.AUDIO_DAMAGED, seconds=1.0, share=0.01),
        ResultWarning(code=WarningCode.AUDIO_GAPS, seconds=0.25, count=2),
        ResultWarning(code=WarningCode.AUDIO_INCOMPLETE, seconds=0.5, share=0.01),
        ResultWarning(code=WarningCode.AUDIO_CLIPPED, seconds=2.0, share=0.011),
        *(ResultWarning(code=code, count=count) for count, code in enumerate(sorted(quality.DROPPED), 1)),
        ResultWarning(code=WarningCode.NOT_SPEECH, seconds=50.0),
        ResultWarning(code=WarningCode.CLOCK_JUMPS, count=50),
    ]
    found = reported(warnings=warnings)
    assert (found["damaged_s"], found["clipped_share"], found["dropped_texts"]) == (1.75, 0.011, 1 + 2 + 3 + 4 + 5)
    assert quality.uncertain_s([ResultWarning(code=WarningCode.SPEECH_UNCERTAIN, seconds=3.5)]) == 3.5


@pytest.mark.parametrize("snr_db", [-3.0, 0.0, 5.0, 20.0, 45.0])
def test_the_noise_under_the_speech_is_not_taken_for_speech(snr_db: float) -> None:
    """Of speech and noise whose powers are known, added up, the ratio of their powers is found to 0.1 dB."""
    together_dbfs = 10 * np.log10(10 ** ((snr_db - 50) / 10) + 10**-5)
    assert quality.snr_db(tracks(speech_dbfs=together_dbfs), SPEECH) == pytest.approx(snr_db, abs=0.1)


def test_damage_is_a_share_of_the_video_and_speech_one_of_all_channels() -> None:
    """However many channels are kept apart, one after the other: 3.6 of 60 s are 6 %, which is doubtful."""
    lost = (ResultWarning(code=WarningCode.AUDIO_INCOMPLETE, seconds=3.6, share=0.06),)
    for count in (2, 8):
        apart = Channels(count=count, each_s=60.0 + CHANNEL_GAP_S)
        spoken = [Span(start_s=n * apart.each_s, end_s=n * apart.each_s + 30.0) for n in range(count)]
        found = reported(audio_s=count * apart.each_s, channels=apart, speech=spoken, tracks=None, warnings=lost)
        assert found["speech_share"] == 0.5
        assert "AUDIO_DAMAGED" in found["reasons"]


def test_the_ratio_of_noise_has_bounds() -> None:
    """Where speech is no louder than what is beside it, and where there is nothing but faint hiss beside it."""
    assert quality.snr_db(tracks(speech_dbfs=-60.0), SPEECH) == pytest.approx(-10.0)
    assert quality.snr_db(tracks(speech_dbfs=-1.0, background_dbfs=-95.0), SPEECH) == 60.0


def test_no_ratio_without_background() -> None:
    """Digital silence beside the speech is no background, nor is less than half a second of any."""
    assert quality.snr_db(tracks(background_dbfs=-120.0), SPEECH) is None
    assert quality.snr_db(tracks(), [Span(start_s=0, end_s=99.4)]) is None
    assert quality.snr_db(tracks(), [Span(start_s=0, end_s=99.2)]) is not None
    assert quality.snr_db(tracks(), []) is None


def test_digital_silence_hides_no_noise() -> None:
    """A gated or padded file has the ratio of the sound that is there."""
    padded = tracks(background_dbfs=-35.0)
    padded.level_dbfs[:970] = -120.0
    padded.level_dbfs[4100:5600] = -120.0  # more than half of what is beside the speech
    assert quality.snr_db(padded, SPEECH) == pytest.approx(quality.snr_db(tracks(background_dbfs=-35.0), SPEECH))


def test_tracks_that_begin_later() -> None:
    """Frames are found by their times, and spans that reach past the tracks are cut."""
    later = tracks(start_s=-10.0)  # frame 0 is 10 s before the video's start
    moved = [Span(start_s=each.start_s - 10, end_s=each.end_s - 10) for each in SPEECH]
    assert quality.snr_db(later, moved) == pytest.approx(30.0, abs=0.01)
    assert quality.snr_db(later, [*moved, Span(start_s=95, end_s=500)]) == pytest.approx(30.0, abs=0.01)


def test_speech_without_words() -> None:
    """Of 60 s of speech, words cover 29.4 s and 0.3 s on either side; outside of the speech they count for nothing."""
    words = Segment(
        start_s=0,
        end_s=1,
        speaker=0,
        words=(Word(start_s=10.3, end_s=39.7, text="w"), Word(start_s=41, end_s=58, text="w")),
    )
    assert quality.wordless_share(SPEECH, [words], AUDIO_S) == pytest.approx(0.5)
    assert quality.wordless_share(SPEECH, [], AUDIO_S) == 1.0
    assert quality.wordless_share([], [words], AUDIO_S) is None


def test_overlap_is_that_of_the_speakers_time() -> None:
    """Frames of several speakers among those of any, over all windows; soft scores count from one half."""
    scores = np.zeros((2, 10, 3), np.float32)
    scores[0, :8, 0] = 0.9
    scores[0, 6:, 1] = 0.6
    scores[1, :, 2] = 0.4
    one = Segmentation(first_window=0, duration_s=10, scores=scores)
    other = Segmentation(first_window=2, duration_s=10, scores=np.ones((1, 10, 3), np.float32))
    assert quality.overlap_of([one]).share == pytest.approx(2 / 10)
    assert quality.overlap_of([one, other]).share == pytest.approx(12 / 20)
    silent = Segmentation(first_window=0, duration_s=1, scores=np.zeros((0, 10, 3), np.float32))
    assert quality.overlap_of([silent]).share is None


def test_confidence_is_weighted_by_time() -> None:
    """A long word counts for more, a momentary one for a hundredth of a second, one without confidence for nothing."""
    assert quality.mean_confidence([said((3.0, 0.2), (1.0, 1.0)), said((9.0, None))]) == pytest.approx(0.4)
    assert quality.mean_confidence([said((0.0, 0.2), (0.0, 0.4))]) == pytest.approx(0.3)
    assert quality.mean_confidence([said((1.0, float("nan")), (1.0, 0.5))]) == 0.5
    assert quality.mean_confidence([said((1.0, None))]) is None


def test_a_figure_that_is_no_number_is_an_error() -> None:
    """JSON does not know it: the result has to go without."""
    with pytest.raises(ValueError, match="finite"):
        reported(
            tracks=tracks(background_dbfs=float("nan"), speech_dbfs=float("nan")), language_probability=float("inf")
        )


# The limits

FIGURE_OF: dict[Reason, str] = {
    Reason.LOW_CONFIDENCE: "mean_confidence",
    Reason.SPEECH_UNWRITTEN: "wordless_share",
    Reason.LANGUAGE_UNCERTAIN: "language_doubt",
    Reason.LOW_SNR: "snr_db",
    Reason.AUDIO_CLIPPED: "clipped_share",
    Reason.OVERLAPPED: "overlap_share",
}
"""Those whose limit is one of the figure itself."""


def judged_at(reason: Reason, value: float) -> tuple[Verdict, list[Reason]]:
    """The verdict on a result that is good but for what `reason` is judged by."""
    given: dict[str, Any] = {"sound_s": AUDIO_S, "part_s": AUDIO_S, "uncertain_s": 0.0, "has_words": True}
    figures = {name: getattr(GOOD, name) for name in GOOD.__dataclass_fields__}
    if reason in FIGURE_OF:
        figures[FIGURE_OF[reason]] = value
    elif reason is Reason.AUDIO_DAMAGED:
        figures["damaged_s"] = value * AUDIO_S
    elif reason is Reason.TEXT_DROPPED:
        figures["dropped_texts"], figures["speech_share"] = 6, 6 * 60 / value / AUDIO_S
    elif reason is Reason.SPEECH_UNCERTAIN:
        given["uncertain_s"] = value * 0.6 * AUDIO_S
    else:
        assert reason is Reason.NO_SPEECH
        given["has_words"], figures["wordless_share"] = False, 1.0
    return quality.judged(quality.Quality(**figures), **given)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.reason)
def test_each_limit_holds_at_its_border_and_not_before(limit: Limit) -> None:
    """At the value the reason is given; a little on the good side nothing is, or the milder verdict."""
    good, bad = (1 + 1e-6, 1 - 1e-9) if limit.is_least else (1 - 1e-6, 1 + 1e-9)
    assert judged_at(limit.reason, limit.doubtful * bad) == (Verdict.DOUBTFUL, [limit.reason])
    if limit.doubtful:
        assert judged_at(limit.reason, limit.doubtful * good) == (Verdict.GOOD, [])
    if limit.poor is not None:
        assert judged_at(limit.reason, limit.poor * bad) == (Verdict.POOR, [limit.reason])
        assert judged_at(limit.reason, limit.poor * good) == (Verdict.DOUBTFUL, [limit.reason])


def _section(head: str) -> str:
    return (ROOT / "docs/api.md").read_text(encoding="utf-8").partition(f"\n{head}\n")[2].partition("\n### ")[0]


def _told(limit: Limit, value: float | None) -> str:
    """A limit as docs/api.md has it."""
    if limit.reason is Reason.NO_SPEECH:
        return "-" if value is None else "no word"
    return "-" if value is None else f"{'≤' if limit.is_least else '≥'} {value:g}"


def test_each_reason_has_one_limit_and_its_poor_side_lies_further_out() -> None:
    """Nothing on the list is without a rule, and docs/api.md has the rules."""
    assert [limit.reason for limit in LIMITS] == list(Reason)
    rows = re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|", _section("### Quality"), re.MULTILINE)
    assert rows == [(limit.reason, _told(limit, limit.doubtful), _told(limit, limit.poor)) for limit in LIMITS]
    for limit in LIMITS:
        if limit.poor is not None:
            assert limit.passed(limit.poor, limit.doubtful)
            assert limit.poor != limit.doubtful


def test_what_makes_it_poor_comes_first() -> None:
    """All that speaks against a result is told, and each once."""
    poor = next(limit for limit in LIMITS if limit.reason is Reason.AUDIO_DAMAGED)
    unsure = next(limit for limit in LIMITS if limit.reason is Reason.LOW_CONFIDENCE)
    assert poor.poor is not None
    figures = {name: getattr(GOOD, name) for name in GOOD.__dataclass_fields__}
    figures |= {"damaged_s": poor.poor * AUDIO_S, "mean_confidence": unsure.doubtful}
    found = quality.judged(quality.Quality(**figures), sound_s=AUDIO_S, part_s=AUDIO_S, uncertain_s=0, has_words=True)
    assert found == (Verdict.POOR, [Reason.AUDIO_DAMAGED, Reason.LOW_CONFIDENCE])


def test_nothing_to_divide_by() -> None:
    """No audio at all, and no speech: no error, and the figures that there are."""
    found = reported(audio_s=0.0, speech=(), tracks=None, segments=[], warnings=())
    assert (found["verdict"], found["reasons"]) == ("doubtful", ["NO_SPEECH"])
    assert "speech_share" not in found


def test_an_hour_takes_milliseconds() -> None:
    """An hour with 10,000 words and the windows of a trained diarizer: 0.1 s of processor time at most."""
    levels = np.random.default_rng(1).uniform(-80, -10, 360_000).astype(np.float32)
    track = Tracks(start_s=0, f0_hz=levels, level_dbfs=levels)
    speech = [Span(start_s=at, end_s=at + 2.0) for at in np.arange(0, 3600, 3.0).tolist()]
    segments = [said(*[(0.3, 0.9)] * 20)] * 500
    windows = Segmentation(first_window=0, duration_s=3600, scores=np.ones((3600, 589, 3), np.float32))
    times = []
    for _ in range(3):
        began = time.process_time()
        overlap = quality.overlap_of([windows])
        reported(audio_s=3600.0, speech=speech, tracks=track, segments=segments, overlap=overlap)
        times.append(time.process_time() - began)
    assert min(times) < 0.5  # a slow machine under load; 0.1 s elsewhere


# Its names


def test_the_console_and_the_command_line_say_the_same() -> None:
    """Each verdict and reason has the same Korean and English in words.js and in Python."""
    words = (ROOT / "serve_app/console/words.js").read_text(encoding="utf-8")
    told = {
        key: {"en": en, "ko": ko}
        for key, en, ko in re.findall(r'^  (\w+): \["(.*?)", "(.*?)"\],$', words, re.MULTILINE)
    }
    assert {verdict: told[f"verdict_{verdict}"] for verdict in Verdict} == VERDICTS
    assert {reason: told[reason] for reason in Reason} == REASONS


def test_a_reason_is_called_as_its_warning_is() -> None:
    """The codes of the same matter are the same, and no code means two things."""
    assert {*map(str, Reason)} & {*map(str, WarningCode)} == {
        "SPEECH_UNCERTAIN",
        "LANGUAGE_UNCERTAIN",
        "AUDIO_CLIPPED",
        "AUDIO_DAMAGED",
    }


def test_a_line_for_the_terminal() -> None:
    """The verdict and its reasons in the reader's language; codes of a later release stay codes."""
    both = {"verdict": "doubtful", "reasons": ["LOW_SNR", "OVERLAPPED"]}
    assert (
        quality_line(both, "en") == "doubtful (the speech is hardly louder than the noise, people often speak at once)"
    )
    assert quality_line({"verdict": "good", "reasons": []}, "ko") == "좋음"
    assert quality_line({"verdict": "superb", "reasons": ["NEW"]}, "en") == "superb (NEW)"
    assert json.loads(json.dumps(reported()))["verdict"] == "good"


def test_the_client_types_all_of_it() -> None:
    """`ml_server_client.Quality` has each field of the object and no other; a result of an earlier release has none."""
    assert set(ml_server_client.Quality.model_fields) == {"verdict", "reasons", *quality.Quality.__dataclass_fields__}
    about: dict[str, Any] = {"filename": "a", "duration": 1.0, "total_segments": 0, "unique_speakers": 0}
    told = ml_server_client.Metadata(**about, quality=reported(overlap=None)).quality
    assert told is not None
    assert (told.verdict, told.reasons, told.overlap_share) == ("good", (), None)
    assert ml_server_client.Metadata(**about).quality is None
