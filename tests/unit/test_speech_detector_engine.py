from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deployments.speech_detector.chunks import join_spans
from deployments.speech_detector.config import SpeechDetectorConfig
from deployments.speech_detector.network import FRAME_STEP_S, FRAMES, Grid, package_file
from deployments.speech_detector.pyannote_segmentation import PyannoteSpeechEngine, cut_long, hysteresis, overlap_add
from deployments.types import SAMPLE_RATE_HZ, Audio, Span, pieces

DIALOGUES = Path(__file__).parents[1] / "data" / "dialogues"


@pytest.fixture(scope="module")
def engine() -> PyannoteSpeechEngine:
    return PyannoteSpeechEngine(SpeechDetectorConfig())


def read(path: Path) -> Audio:
    audio, _ = soundfile.read(path, dtype="int16")
    return np.asarray(audio, np.int16)


def dialogue(name: str) -> tuple[Audio, list[Span]]:
    rows = [line.split() for line in (DIALOGUES / f"{name}.rttm").read_text().splitlines()]
    truth = [Span(start_s=float(row[3]), end_s=float(row[3]) + float(row[4])) for row in rows]
    return read(DIALOGUES / f"{name}.ogg"), truth


def detect_all(engine: PyannoteSpeechEngine, audio: Audio, piece_s: float) -> list[Span]:
    return join_spans([engine.detect(audio, piece) for piece in pieces(len(audio) / SAMPLE_RATE_HZ, piece_s)])


def mask(spans: list[Span], duration_s: float) -> np.ndarray:
    times_s = np.arange(0, duration_s, 0.01)
    return np.asarray(np.any([(times_s >= span.start_s) & (times_s < span.end_s) for span in spans], axis=0))


@pytest.mark.parametrize("name", ["tune_2a", "held_3a"])
def test_the_speech_found_is_the_speech_spoken(engine: PyannoteSpeechEngine, name: str) -> None:
    """On a dialogue with known times at least 97 % of the speech is found, and what is found is 85 % speech."""
    audio, truth = dialogue(name)
    duration_s = len(audio) / SAMPLE_RATE_HZ
    spoken, found = mask(truth, duration_s), mask(detect_all(engine, audio, 120), duration_s)
    assert (spoken & found).sum() >= 0.97 * spoken.sum()
    assert (spoken & found).sum() >= 0.85 * found.sum()


def test_pieces_find_what_the_whole_finds(engine: PyannoteSpeechEngine) -> None:
    """Cut in pieces of 8 s with borders inside words, the detected speech is that of one piece."""
    audio, _ = dialogue("tune_2a")
    duration_s = len(audio) / SAMPLE_RATE_HZ
    whole, cut = (mask(detect_all(engine, audio, piece_s), duration_s) for piece_s in (300, 8))
    assert (whole != cut).mean() <= 0.001


def test_a_piece_that_begins_in_doubtful_speech_knows_what_came_before(engine: PyannoteSpeechEngine) -> None:
    """Where speech fades (a score between offset and onset), a piece that begins there still begins with speech."""
    audio, _ = dialogue("tune_2a")
    times_s, scores = engine.scores(audio, Span(start_s=0, end_s=20))
    (start, end), *_ = hysteresis(scores, engine.config.onset, engine.config.offset)
    fading = start + np.flatnonzero(scores[start:end] < engine.config.onset)
    assert len(fading)
    border_s = float(times_s[fading[0]])
    found = engine.detect(audio, Span(start_s=border_s, end_s=border_s + 2))
    assert found[0].start_s == border_s


def test_long_speech_is_cut_into_spans_that_fit(engine: PyannoteSpeechEngine) -> None:
    """In ten seconds of talk without a break no span is longer than the setting, and some touch."""
    audio = read(package_file("pyannote.audio", "sample/sample.wav"))
    found = engine.detect(audio, Span(start_s=0, end_s=30))
    assert max(span.duration_s for span in found) <= 7.0 + FRAME_STEP_S
    assert any(before.end_s == after.start_s for before, after in pairwise(found))


@pytest.mark.parametrize("samples", [0, 1, 800, 5 * SAMPLE_RATE_HZ, 12 * SAMPLE_RATE_HZ])
@pytest.mark.parametrize("level", [0, 30])
def test_silence_of_any_length_holds_no_speech(engine: PyannoteSpeechEngine, samples: int, level: int) -> None:
    """Digital silence and faint noise, from nothing to seconds: no spans, no exception."""
    audio = (np.random.default_rng(0).normal(size=samples) * level).astype(np.int16)
    assert detect_all(engine, audio, 300) == []


def test_spans_stay_inside_their_piece_and_the_audio(engine: PyannoteSpeechEngine) -> None:
    """A piece that begins and ends in speech gives spans clipped to it, read-only audio or not."""
    audio = read(package_file("pyannote.audio", "sample/sample.wav"))
    audio.flags.writeable = False
    found = engine.detect(audio, Span(start_s=12, end_s=16))
    assert (found[0].start_s, found[-1].end_s) == (12, 16)


def test_hysteresis_follows_the_rule_frame_by_frame() -> None:
    """Speech turns on above the onset and off below the offset, as a plain loop over the frames says."""
    scores = np.random.default_rng(1).random(2000).astype(np.float32)
    on, expected = False, []
    for score in scores:
        on = bool(score >= 0.4) if on else bool(score > 0.7)
        expected.append(on)
    found = np.zeros(len(scores), bool)
    for i, j in hysteresis(scores, 0.7, 0.4):
        found[i:j] = True
    assert found.tolist() == expected


def test_scores_that_all_windows_agree_on_are_kept() -> None:
    """Windows that say the same about a moment give just that, wherever it lies in them."""
    grid = Grid(samples=20 * SAMPLE_RATE_HZ, step_s=27 * FRAME_STEP_S)
    truth = np.random.default_rng(2).random(2000).astype(np.float32)
    windows = range(3, 12)
    first, scores = overlap_add(np.stack([truth[27 * w : 27 * w + FRAMES] for w in windows]), grid, windows)
    assert first == 81
    np.testing.assert_allclose(scores, truth[81 : 81 + len(scores)], rtol=1e-5)


def test_long_speech_is_cut_where_the_score_is_lowest() -> None:
    """Of 10 s of speech with a dip at 5.5 s, at most 7 s long parts are made by a cut in the dip."""
    times_s = np.arange(0, 10, FRAME_STEP_S)
    scores = (1 - 0.5 * np.exp(-((times_s - 5.5) ** 2))).astype(np.float32)
    first, second = cut_long(times_s, scores, Span(start_s=0, end_s=10), 7.0)
    assert first.end_s == second.start_s == pytest.approx(5.5, abs=FRAME_STEP_S)


@pytest.mark.parametrize("duration_s", [0.01, 4.99, 5.0, 5.01, 7.5, 31.7])
def test_every_window_of_the_grid_starts_in_exactly_one_piece(duration_s: float) -> None:
    """Pieces of any length share out the windows of a video, and the windows reach its end."""
    grid = Grid(samples=round(duration_s * SAMPLE_RATE_HZ), step_s=0.5)
    shared = [window for piece in pieces(duration_s, 3.3) for window in grid.starting_in(piece.start_s, piece.end_s)]
    assert shared == list(range(grid.count))
    assert (grid.count - 1) * 0.5 + 5 >= duration_s
    assert grid.count == 1 or (grid.count - 2) * 0.5 + 5 < duration_s


def test_a_missing_weights_file_is_named() -> None:
    """A package without the file is an error that says which file of which package, and no path."""
    assert find_spec("whisperx")
    with pytest.raises(FileNotFoundError, match=r"nothing.bin of the Python package whisperx"):
        package_file("whisperx", "nothing.bin")
