"""The diarizer against pyannote's own pipeline, resemblyzer's own method, and real and synthesized references."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import torch

from deployments.diarizer.config import DiarizerConfig
from deployments.diarizer.pieces import joined
from deployments.diarizer.pyannote_ge2e import PyannoteGE2EEngine
from deployments.diarizer.voices import MELS, mel_filters, mel_power, own_frames, window_weights
from deployments.speech_detector.network import FRAMES, Grid, cut_windows, package_file
from deployments.types import SAMPLE_RATE_HZ, Audio, Span, Turn, pieces

if TYPE_CHECKING:
    from deployments.diarizer.protocol import Embeddings, Segmentation

DIALOGUES = Path(__file__).parents[1] / "data" / "dialogues"
SAMPLE = package_file("pyannote.audio", "sample/sample.wav")


@pytest.fixture(scope="module")
def engine() -> PyannoteGE2EEngine:
    return PyannoteGE2EEngine(DiarizerConfig())


@pytest.fixture(scope="module")
def pyannote_pipeline(engine: PyannoteGE2EEngine) -> Any:
    engine._pipeline.result()
    from deployments.diarizer import pyannote_pipeline

    return pyannote_pipeline


def read(path: Path) -> Audio:
    audio: Audio = soundfile.read(path, dtype="int16")[0]
    audio.flags.writeable = False
    return audio


def steps(engine: PyannoteGE2EEngine, audio: Audio, piece_s: float) -> tuple[list[Segmentation], list[Embeddings]]:
    parts = pieces(len(audio) / SAMPLE_RATE_HZ, piece_s)
    segmentations = [engine.segment(audio, piece) for piece in parts]
    return segmentations, [engine.embed(audio, segmentation) for segmentation in segmentations]


def diarize(engine: PyannoteGE2EEngine, audio: Audio, piece_s: float = 60, **counts: int) -> list[Turn]:
    segmentations, embeddings = steps(engine, audio, piece_s)
    return engine.cluster(segmentations, embeddings, **counts)


def annotation(turns: list[tuple[float, float, str]]) -> Any:
    from pyannote.core import Annotation, Segment

    made = Annotation()
    for track, (start_s, end_s, speaker) in enumerate(turns):
        made[Segment(start_s, end_s), track] = speaker
    return made


def error_rate(path: Path, turns: list[Turn]) -> float:
    from pyannote.core import Segment
    from pyannote.metrics.diarization import DiarizationErrorRate

    rows = [line.split() for line in path.with_suffix(".rttm").read_text().splitlines()]
    reference = annotation([(float(row[3]), float(row[3]) + float(row[4]), row[7]) for row in rows])
    hypothesis = annotation([(turn.start_s, turn.end_s, str(turn.speaker)) for turn in turns])
    duration_s = soundfile.info(path).duration
    rate: float = DiarizationErrorRate(collar=0.0, skip_overlap=False)(
        reference, hypothesis, uem=Segment(0, duration_s)
    )
    return rate


@pytest.mark.parametrize(
    ("path", "speakers"),
    [
        (SAMPLE, 2),
        (DIALOGUES / "held_1a.ogg", 1),
        (DIALOGUES / "held_2b.ogg", 2),
        (DIALOGUES / "held_3b.ogg", 3),
        (DIALOGUES / "held_4a.ogg", 4),
    ],
    ids=lambda value: getattr(value, "stem", None),
)
def test_the_default_settings_find_who_speaks_when(engine: PyannoteGE2EEngine, path: Path, speakers: int) -> None:
    """Without a count given: the right number of speakers, and a DER of at most 15 % (collar 0, overlap included)."""
    turns = diarize(engine, read(path))
    assert len({turn.speaker for turn in turns}) == speakers
    assert error_rate(path, turns) <= 0.15


def test_pieces_give_what_pyannotes_own_pipeline_gives_for_the_whole(
    engine: PyannoteGE2EEngine, pyannote_pipeline: Any
) -> None:
    """In pieces of 7.3 s, the turns are those of pyannote's unchanged `SpeakerDiarization.apply` on the whole file."""
    from deployments.diarizer.piecewise import SpeakerDiarization, in_order

    audio = read(SAMPLE)
    oracle = pyannote_pipeline.build(engine.config, engine._network.network, engine._voices, SpeakerDiarization)
    waveform = torch.from_numpy(audio.astype(np.float32) / 2**15)[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = oracle.apply({"waveform": waveform, "sample_rate": SAMPLE_RATE_HZ, "uri": "sample"})
    expected = in_order(output.speaker_diarization)
    found = diarize(engine, audio, 7.3)
    assert [turn.speaker for turn in found] == [turn.speaker for turn in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.start_s == pytest.approx(theirs.start_s, abs=1e-6)
        assert ours.end_s == pytest.approx(min(theirs.end_s, 30.0), abs=1e-6)


def test_the_network_gives_the_scores_of_pyannotes_own_model(
    engine: PyannoteGE2EEngine, pyannote_pipeline: Any
) -> None:
    """On windows of real speech, padded ones included, the scores are those of pyannote's PyanNet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = pyannote_pipeline.Model.from_pretrained(package_file("whisperx", "assets/pytorch_model.bin")).eval()
    audio = read(SAMPLE)
    grid = Grid(samples=len(audio) - 1000, step_s=5.0)
    windows = range(grid.count)
    with torch.inference_mode():
        expected = model(torch.from_numpy(cut_windows(audio[:-1000], grid, windows))).numpy()
    np.testing.assert_allclose(engine._network.scores(audio[:-1000], grid, windows), expected, atol=1e-4)
    assert model.receptive_field.step == pyannote_pipeline.FRAME_STEP_S
    assert model.receptive_field.duration == pyannote_pipeline.FRAME_WIDTH_S


def test_pieces_describe_voices_as_the_whole_does(engine: PyannoteGE2EEngine) -> None:
    """Scores and vectors of pieces of 7.3 s are those of one piece, to float32's rounding."""
    audio = read(SAMPLE)
    (whole,), (whole_vectors,) = steps(engine, audio, 60)
    cut, cut_vectors = steps(engine, audio, 7.3)
    np.testing.assert_allclose(joined([(s.first_window, s.scores) for s in cut]), whole.scores, atol=1e-4)
    vectors = joined([(each.first_window, each.vectors) for each in cut_vectors])
    np.testing.assert_allclose(vectors, whole_vectors.vectors, atol=1e-4)


def test_the_mel_is_librosas() -> None:
    """Filters and spectrogram equal librosa's, from the middle of a file as from its start."""
    import librosa
    from librosa.filters import mel as librosa_filters

    audio = read(SAMPLE)[:40_000]
    mel = librosa.feature.melspectrogram(
        y=audio.astype(np.float32) / 2**15, sr=SAMPLE_RATE_HZ, n_fft=400, hop_length=160, n_mels=MELS
    ).T
    filters: Any = librosa_filters(sr=SAMPLE_RATE_HZ, n_fft=400, n_mels=MELS)
    np.testing.assert_allclose(mel_filters().T, filters, atol=1e-8)
    np.testing.assert_allclose(mel_power(audio, 0, 251), mel, atol=1e-6)
    np.testing.assert_allclose(mel_power(audio, 100, 60), mel[100:160], atol=1e-6)


def test_only_stretches_without_another_voice_describe_a_speaker() -> None:
    """Of a window whose speaker has its last 2 s, only the stretches that lie in them count, or else the best one."""
    own = np.zeros((2, 500), bool)
    own[0, 300:] = True
    own[1, 100:160] = True
    hearings = np.array([950, 1000, 1050, 1100, 1300, 1340, 1350])
    weights = window_weights(own, np.array([1000, 1000]), hearings)
    assert weights[0].tolist() == [0, 0, 0, 0, 1, 1, 0]
    assert np.flatnonzero(weights[1]).tolist() == [1, 2, 3]
    assert weights[1, 1] == pytest.approx(60 / 160)


def test_overlapped_speech_describes_only_who_has_nothing_else() -> None:
    """Of two who overlap, the one with enough speech alone is described by that, the other by all there is."""
    active = np.zeros((1, FRAMES, 2), bool)
    active[0, :200, 0] = True
    active[0, 100:220, 1] = True
    first, second = own_frames(active)
    assert first.sum() == pytest.approx(100 * 270 / 160, abs=5)
    assert second.sum() == pytest.approx(120 * 270 / 160, abs=5)


@pytest.mark.parametrize("samples", [0, 1, 800, 4000, 5 * SAMPLE_RATE_HZ])
def test_too_little_to_hear_has_no_turns(engine: PyannoteGE2EEngine, samples: int) -> None:
    """Silence, and 0.25 s of real speech or less, hold no turns and raise nothing."""
    speech = read(SAMPLE)[120_000:]
    assert diarize(engine, np.zeros(samples, np.int16)) == []
    if samples <= 4000:
        assert diarize(engine, speech[:samples]) == []


def test_a_second_of_speech_is_one_speaker_within_the_audio(engine: PyannoteGE2EEngine) -> None:
    """A clip shorter than the network's window has its turns inside itself."""
    turns = diarize(engine, read(SAMPLE)[120_000:140_000])
    assert {turn.speaker for turn in turns} == {0}
    assert all(0 <= turn.start_s < turn.end_s <= 1.25 for turn in turns)


@pytest.mark.parametrize(
    ("counts", "found"), [({"num_speakers": 1}, 1), ({"min_speakers": 3}, 3), ({"max_speakers": 1}, 1)]
)
def test_a_given_count_is_kept(engine: PyannoteGE2EEngine, counts: dict[str, int], found: int) -> None:
    """The sample's two speakers become as many as the caller knows there are."""
    assert len({turn.speaker for turn in diarize(engine, read(SAMPLE), **counts)}) == found


def test_missing_and_doubled_pieces_are_refused(engine: PyannoteGE2EEngine) -> None:
    """A driver that lost a piece, or sends one twice, gets an error and no wrong turns; order does not matter."""
    segmentations, embeddings = steps(engine, read(SAMPLE), 10)
    with pytest.raises(ValueError, match="expected window 10, got 20"):
        engine.cluster([segmentations[0], segmentations[2]], [embeddings[0], embeddings[2]])
    with pytest.raises(ValueError, match="expected window 10, got 0"):
        engine.cluster([segmentations[0], *segmentations], embeddings)
    turns = engine.cluster(segmentations, embeddings)
    assert engine.cluster(segmentations[::-1], embeddings[::-1]) == turns


def voices(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`count` vectors of three voices as loosely scattered as real ones, and whose they are."""
    draw = np.random.default_rng(seed)
    speakers = draw.integers(3, size=count)
    centres = draw.random((3, 256)) * (draw.random((3, 256)) > 0.5)
    vectors = (centres[speakers] + 0.12 * draw.normal(size=(count, 256))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), speakers


def partition(labels: np.ndarray) -> list[int]:
    """Labels renumbered in order of appearance, so that equal partitions are equal lists."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(label), len(numbers)) for label in labels]


def test_bounded_clustering_equals_unbounded(pyannote_pipeline: Any) -> None:
    """Where both can run, linking one in four vectors gives the clusters of linking all, which are the truth."""
    vectors, truth = voices(2000)
    found = [
        pyannote_pipeline.BoundedClustering(DiarizerConfig(max_clustered=bound)).cluster(
            vectors, min_clusters=1, max_clusters=2000
        )
        for bound in (500, 2000)
    ]
    assert partition(found[0]) == partition(found[1]) == partition(truth)


def test_an_hour_of_dense_talk_is_clustered_in_bounded_memory(pyannote_pipeline: Any) -> None:
    """21,600 vectors, of which linkage alone would take 3.7 GB, take less than 200 MB, and the voices are right."""
    vectors, truth = voices(21_600)
    clustering = pyannote_pipeline.BoundedClustering(DiarizerConfig())
    tracemalloc.start()
    found = clustering.cluster(vectors, min_clusters=1, max_clusters=21_600)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert partition(found) == partition(truth)
    assert peak_bytes < 200e6


def test_a_speaker_who_cannot_be_described_joins_nobody(pyannote_pipeline: Any) -> None:
    """A local speaker without a vector gets no cluster, where pyannote gives cluster 0."""
    vectors, _ = voices(30)
    embeddings = np.stack([vectors, np.full_like(vectors, np.nan)], axis=1)
    active = pyannote_pipeline.SlidingWindowFeature(
        np.stack([np.ones((30, FRAMES)), np.zeros((30, FRAMES))], axis=2), pyannote_pipeline.SlidingWindow()
    )
    hard, _, _ = pyannote_pipeline.BoundedClustering(DiarizerConfig())(embeddings, segmentations=active)
    assert hard.shape == (30, 2)
    assert (hard[:, 0] >= 0).all()
    assert (hard[:, 1] == -2).all()
    assert hard[:, 0].max() == 2


def test_a_piece_after_the_last_window_is_empty(engine: PyannoteGE2EEngine) -> None:
    """The last seconds of a video start no window: such a piece has none, and costs nothing."""
    segmentation = engine.segment(read(SAMPLE), Span(start_s=28, end_s=30))
    assert segmentation.scores.shape == (0, FRAMES, 3)
    assert engine.embed(read(SAMPLE), segmentation).vectors.shape == (0, 3, 256)
