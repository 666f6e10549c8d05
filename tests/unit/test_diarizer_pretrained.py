"""The production diarizer on a small pipeline of the real kind, against pyannote's own pipeline in one call."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from pydantic import ValidationError

from deployments import replica
from deployments.diarizer import config as diarizer_config
from deployments.diarizer import deployment
from deployments.diarizer.config import DiarizerConfig
from deployments.diarizer.registry import create
from deployments.errors import DeviceError, ModelLoadError
from deployments.models.config import ModelsConfig
from deployments.types import SAMPLE_RATE_HZ, Audio, Span, Turn, pieces
from tests.support import real_models
from tests.support.small_diarizer import build_pipeline, save_powerset_network, voice_encoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from deployments.diarizer.pretrained import PretrainedEngine
    from deployments.diarizer.protocol import Embeddings, Segmentation

DIALOGUES = Path(__file__).parents[1] / "data" / "dialogues"
FRAME_S = 270 / SAMPLE_RATE_HZ
VBX = {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8}
"""Settings of community-1."""


def engine_on(directory: Path, **settings: Any) -> PretrainedEngine:
    made: Any = create(DiarizerConfig(engine="pyannote", model=str(directory), **settings))
    return made


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pipeline(tmp_path_factory.mktemp("models") / "small-diarizer", narrow=True)


@pytest.fixture(scope="module")
def engine(directory: Path) -> PretrainedEngine:
    return engine_on(directory)


def read(name: str) -> Audio:
    return frozen(soundfile.read(DIALOGUES / f"{name}.ogg", dtype="int16")[0])


def frozen(audio: Audio) -> Audio:
    audio.flags.writeable = False
    return audio


@pytest.fixture(scope="module")
def talk() -> Audio:
    """Two voices for 15 s, then two other ones who talk at the same time for 10 s."""
    first, second, third = read("tune_2a")[: 15 * SAMPLE_RATE_HZ], read("tune_2b"), read("held_2a")
    return frozen(np.concatenate([first, second[: 10 * SAMPLE_RATE_HZ] + third[: 10 * SAMPLE_RATE_HZ]]))


def steps(engine: PretrainedEngine, audio: Audio, piece_s: float) -> tuple[list[Segmentation], list[Embeddings]]:
    segmentations = [engine.segment(audio, piece) for piece in pieces(len(audio) / SAMPLE_RATE_HZ, piece_s)]
    return segmentations, [engine.embed(audio, segmentation) for segmentation in segmentations]


@pytest.fixture(scope="module")
def heard(engine: PretrainedEngine, talk: Audio) -> Callable[[str], tuple[list[Segmentation], list[Embeddings]]]:
    """What the engine hears in a dialogue, or in `talk`, in one piece: once for all tests."""
    return cache(lambda name: steps(engine, talk if name == "talk" else read(name), 60))


def diarize(engine: PretrainedEngine, audio: Audio, piece_s: float = 60, **counts: int) -> list[Turn]:
    return engine.cluster(*steps(engine, audio, piece_s), **counts)


def in_one_call(directory: Path, audio: Audio) -> Any:
    """What pyannote's own pipeline gives, loaded and called as its documentation says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyannote.audio import Pipeline

        pipeline: Any = Pipeline.from_pretrained(directory)
        waveform = torch.from_numpy(audio.astype(np.float32) / 2**15)[None]
        return pipeline({"waveform": waveform, "sample_rate": SAMPLE_RATE_HZ})


def assert_same(found: list[Turn], expected: Any, end_s: float) -> None:
    """The same turns within a frame, the same speakers up to their names, no later than the end."""
    from deployments.diarizer.piecewise import in_order

    theirs = [turn for turn in in_order(expected) if turn.start_s < end_s]
    assert [turn.speaker for turn in found] == [turn.speaker for turn in theirs]
    assert [turn.start_s for turn in found] == pytest.approx([turn.start_s for turn in theirs], abs=FRAME_S)
    assert [turn.end_s for turn in found] == pytest.approx([min(t.end_s, end_s) for t in theirs], abs=FRAME_S)


def changed(directory: Path, copy: Path, **params: Any) -> Path:
    """A copy of the pipeline with other parameters of the pipeline and of its clustering."""
    shutil.copytree(directory, copy, symlinks=True, copy_function=os.symlink)
    content = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    for part, values in params.items():
        content[part] = values if part == "params" else content[part] | {"params": content[part]["params"] | values}
    (copy / "config.yaml").unlink()
    (copy / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return copy


def assert_pieces_equal_one_call(directory: Path, audio: Audio) -> None:
    """In pieces of 7.3 s and batches of a few windows: the overlapping and the exclusive turns of `pipeline(audio)`."""
    expected = in_one_call(directory, audio)
    assert len(expected.speaker_diarization) > 5
    engine = engine_on(directory, embedding_batch_size=3, segmentation_batch_size=2, encode_once=False)
    found, end_s = steps(engine, audio, 7.3), len(audio) / SAMPLE_RATE_HZ
    assert_same(engine.cluster(*found), expected.exclusive_speaker_diarization, end_s)
    engine.config = engine.config.model_copy(update={"exclusive": False})
    assert_same(engine.cluster(*found), expected.speaker_diarization, end_s)


def test_a_narrow_voice_encoder_hears_what_the_whole_one_hears(talk: Audio) -> None:
    """The encoder of this file's pipeline leaves out nothing but zeros."""
    windows = torch.from_numpy(talk[: 15 * SAMPLE_RATE_HZ].astype(np.float32).reshape(3, 1, -1) / 2**15)
    with torch.inference_mode():
        narrow, whole = (voice_encoder(narrow=narrow).eval()(windows).numpy() for narrow in (True, False))
    np.testing.assert_allclose(narrow, whole, atol=1e-4)


def test_pieces_give_what_pyannotes_own_call_gives(directory: Path, talk: Audio) -> None:
    """On a multi-label network of 5 s, with agglomerative clustering."""
    assert_pieces_equal_one_call(directory, talk)


def test_pieces_give_the_same_on_a_pipeline_like_community_1(directory: Path, tmp_path: Path, talk: Audio) -> None:
    """On a powerset network of 10 s windows, with VBx clustering over a PLDA."""
    vbx = {"segmentation": {"min_duration_off": 0.0}, "clustering": VBX}
    copy = changed(directory, tmp_path / "copy", pipeline={"clustering": "VBxClustering"}, params=vbx)
    (copy / "segmentation" / "pytorch_model.bin").unlink()
    waveform = torch.from_numpy(talk[: 10 * SAMPLE_RATE_HZ].astype(np.float32) / 2**15)
    save_powerset_network(copy / "segmentation" / "pytorch_model.bin", waveform[None, None])
    assert_pieces_equal_one_call(copy, talk)


@real_models.needs("community-1", "ami")
def test_pieces_give_the_same_on_community_1_itself() -> None:
    """Its real weights on real meetings: the last half of one and the first of another, pieces' joints within both."""
    pipeline, meetings = real_models.part("community-1"), real_models.part("ami")
    assert pipeline is not None
    assert meetings is not None
    first, second = (real_models.sound(meetings / f"{name}.wav") for name in ("tst00", "dev01"))
    half = len(first) // 2
    assert_pieces_equal_one_call(pipeline, frozen(np.concatenate([first[half:], second[:half]])))


def test_community_1s_encoder_hears_all_speakers_of_a_window_at_once() -> None:
    """WeSpeaker's ResNet34 with a mask per speaker gives the vectors of one call per speaker."""
    import deployments.diarizer.piecewise  # noqa: F401, I001 - imports pyannote quietly
    from pyannote.audio.models.embedding import WeSpeakerResNet34
    from pyannote.audio.pipelines.speaker_verification import PyannoteAudioPretrainedSpeakerEmbedding

    torch.manual_seed(0)
    encoder = PyannoteAudioPretrainedSpeakerEmbedding(WeSpeakerResNet34())
    waveforms, masks = torch.randn(2, 1, SAMPLE_RATE_HZ), (torch.rand(2, 3, 59) > 0.5).float()
    each = np.stack([encoder(waveforms, masks=masks[:, speaker]) for speaker in range(3)], axis=1)
    np.testing.assert_allclose(encoder(waveforms, masks=masks), each, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["tune_2a", "held_2a", *(pytest.param(each, marks=pytest.mark.full) for each in ("tune_2b", "held_2b"))]
)
def test_two_voices_are_found(engine: PretrainedEngine, heard: Any, name: str) -> None:
    """Two speakers without a count given, and a DER of at most 12 % (collar 0)."""
    from pyannote.core import Annotation, Segment
    from pyannote.metrics.diarization import DiarizationErrorRate

    turns = engine.cluster(*heard(name))
    assert len({turn.speaker for turn in turns}) == 2
    reference, hypothesis = Annotation(), Annotation()
    for row in (line.split() for line in (DIALOGUES / f"{name}.rttm").read_text().splitlines()):
        reference[Segment(float(row[3]), float(row[3]) + float(row[4]))] = row[7]
    for turn in turns:
        hypothesis[Segment(turn.start_s, turn.end_s)] = turn.speaker
    uem = Segment(0, len(read(name)) / SAMPLE_RATE_HZ)
    assert DiarizationErrorRate(collar=0.0)(reference, hypothesis, uem=uem) <= 0.12


def test_overlap_and_counts(engine: PretrainedEngine, heard: Any) -> None:
    """Voices at the same time cost nothing but accuracy: turns in order, none over another, as many as asked for."""
    found = heard("talk")
    for count in (1, 2, 3):
        turns = engine.cluster(*found, num_speakers=count)
        assert len({turn.speaker for turn in turns}) == count
        assert all(a.end_s <= b.start_s + 1e-6 for a, b in pairwise(turns))
    assert len({turn.speaker for turn in engine.cluster(*found, min_speakers=3)}) >= 3
    assert len({turn.speaker for turn in engine.cluster(*found, max_speakers=1)}) == 1
    with pytest.raises(ValueError, match="min_speakers"):
        engine.cluster(*found, min_speakers=3, max_speakers=2)


def test_counts_of_the_config_hold_where_a_call_has_none() -> None:
    """A call's wish replaces all that the config says; contradictions in the config are refused."""
    nothing = {"min_speakers": None, "max_speakers": None, "num_speakers": None}
    config = DiarizerConfig(min_speakers=2, max_speakers=4)
    assert config.counts(**nothing) == nothing | {"min_speakers": 2, "max_speakers": 4}
    assert config.counts(**nothing | {"num_speakers": 7}) == nothing | {"num_speakers": 7}
    for wrong in ({"min_speakers": 3, "max_speakers": 2}, {"num_speakers": 5, "max_speakers": 4}):
        with pytest.raises(ValidationError, match="contradict"):
            DiarizerConfig(**wrong)


@pytest.mark.parametrize("duration_s", [0, 0.05, 1, 12])
def test_silence_gives_no_turns(engine: PretrainedEngine, duration_s: float) -> None:
    """However short, down to no audio at all."""
    assert diarize(engine, frozen(np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16)), 5) == []


@pytest.mark.parametrize("duration_s", [0.05, 1.0, 2.0])
def test_a_second_of_speech_has_one_speaker(engine: PretrainedEngine, duration_s: float) -> None:
    """A video shorter than one window works; what is found in it ends with it."""
    audio = read("tune_2a")[SAMPLE_RATE_HZ:][: round(duration_s * SAMPLE_RATE_HZ)]
    turns = diarize(engine, audio)
    assert {turn.speaker for turn in turns} <= {0}
    assert duration_s < 1 or turns
    assert all(0 <= turn.start_s < turn.end_s <= duration_s for turn in turns)


def test_only_windows_with_speech_are_heard(engine: PretrainedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder, most of the work, gets each window once, in our batches, and no silent one."""
    speech = read("tune_2a")[: 8 * SAMPLE_RATE_HZ]
    audio = frozen(np.concatenate([speech, np.zeros(20 * SAMPLE_RATE_HZ, np.int16)]))
    segmentation = engine.segment(audio, Span(start_s=0, end_s=28))
    heard: list[int] = []
    voices = engine._voices

    class Counting:
        dimension, min_num_samples = voices.dimension, voices.min_num_samples

        def __call__(self, waveforms: Any, masks: Any) -> Any:
            heard.append(len(waveforms))
            return voices(waveforms, masks=masks)

    monkeypatch.setattr(engine, "_voices", Counting())
    vectors = engine.embed(audio, segmentation).vectors
    assert len(segmentation.scores) == 47
    assert max(heard) <= engine.config.embedding_batch_size
    assert 10 < sum(heard) < 25
    spoken = engine._masks(segmentation.scores).any(axis=1)
    np.testing.assert_array_equal(np.isnan(vectors), np.repeat(~spoken[:, :, None], vectors.shape[2], axis=2))


def test_who_is_silent_in_a_window_is_no_nan_to_pyannote(engine: PretrainedEngine) -> None:
    """As in pyannote's own call; who speaks, but cannot be described, stays NaN and finds no speakers."""
    active = engine._pipeline.over_windows(np.array([[[1.0, 0.0, 1.0]] * 293]))
    vectors = np.array([[[np.nan] * 4, [np.nan] * 4, [0.5] * 4]], np.float32)
    given = engine._pipeline.get_embeddings({"embeddings": vectors}, active)
    assert np.isnan(given).all(axis=2).tolist() == [[True, False, False]]
    assert np.isnan(vectors[0, 1]).all()


def test_clustering_is_bounded(directory: Path, heard: Any) -> None:
    """No more vectors than allowed find the speakers, over all the time; everybody is assigned all the same."""
    (segmentation,), (embeddings,) = heard("tune_2a")
    four_times = replace(segmentation, scores=np.concatenate([segmentation.scores] * 4), duration_s=1e4)
    vectors = replace(embeddings, vectors=np.concatenate([embeddings.vectors] * 4))
    small = engine_on(directory, max_clustered=100)
    seen: list[int] = []
    cluster = small._pipeline.clustering.cluster

    def counting(clustered: np.ndarray, **counts: Any) -> Any:
        seen.append(len(clustered))
        return cluster(clustered, **counts)

    small._pipeline.clustering.cluster = counting
    turns = small.cluster([four_times], [vectors])
    assert seen == [100]
    assert len({turn.speaker for turn in turns}) == 2
    assert turns[-1].end_s > 0.9 * len(four_times.scores) * small._network.step


def test_a_missing_pipeline_is_named(tmp_path: Path) -> None:
    """A directory that is not there, or holds no pipeline: an error with its name, before anything is loaded."""
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelLoadError, match=f"{missing}: no such directory, or no config.yaml"):
            engine_on(missing)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numpy leaves a broken .npz open
@pytest.mark.parametrize(
    "broken", ["config.yaml", "segmentation/pytorch_model.bin", "embedding/pytorch_model.bin", "plda/plda.npz"]
)
def test_a_broken_pipeline_is_named(directory: Path, tmp_path: Path, broken: str) -> None:
    """A file cut in half, as a download leaves it: an error that names the pipeline."""
    copy = changed(directory, tmp_path / "pipeline")
    content = (copy / broken).read_bytes()
    (copy / broken).unlink()
    (copy / broken).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelLoadError, match=str(copy)):
        engine_on(copy)


@pytest.mark.parametrize(
    "content",
    [
        {"pipeline": {"name": "pyannote.audio.pipelines.VoiceActivityDetection", "params": {}}},
        {"pipeline": {"name": "os.system", "params": {"command": "true"}}},
    ],
    ids=["another", "none"],
)
def test_another_kind_of_pipeline_is_refused(directory: Path, tmp_path: Path, content: dict[str, Any]) -> None:
    """Only pyannote's own diarization is run, whatever class a file names."""
    content["pipeline"]["params"] |= (
        {"segmentation": str(directory / "segmentation" / "pytorch_model.bin")}
        if "Voice" in content["pipeline"]["name"]
        else {}
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ModelLoadError, match=str(tmp_path)):
        engine_on(tmp_path)


def test_nothing_is_told_to_pyannote(engine: PretrainedEngine) -> None:
    """Its telemetry is off."""
    from pyannote.audio.telemetry.metrics import is_metrics_enabled

    assert not is_metrics_enabled()


def test_the_device_is_checked(engine: PretrainedEngine) -> None:
    """A replica on a device that computes passes; a device that is not there ends the start, by name."""
    engine.check()
    with pytest.raises(ModelLoadError, match=r"diarizer\.device is cuda:99"):
        engine_on(Path(engine.config.model), device="cuda:99")


def test_a_lack_of_memory_costs_time_and_no_voice(
    engine: PretrainedEngine, heard: Any, talk: Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory holds two windows at once and no more, scores and vectors are what a roomy device gives."""
    (segmentation,), (embeddings,) = heard("talk")
    scarce = engine_on(Path(engine.config.model))
    for backoff in (scarce._segmenting, scarce._embedding):
        monkeypatch.setattr(backoff, "_work", small(backoff._work, 2))
    again = scarce.segment(talk, Span(start_s=0, end_s=25))
    np.testing.assert_allclose(again.scores, segmentation.scores, atol=1e-5)
    np.testing.assert_allclose(scarce.embed(talk, segmentation).vectors, embeddings.vectors, atol=1e-4)


async def test_a_dead_device_is_told_to_the_caller_and_to_serve(
    engine: PretrainedEngine, talk: Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver gets the error that it retries elsewhere, and the health check of the replica fails."""
    monkeypatch.setattr(replica, "prepare", lambda **_: None)
    monkeypatch.setattr("deployments.models.store.go_offline", lambda: None)
    config = DiarizerConfig(engine="pyannote", model=engine.config.model)
    diarizer = deployment.Diarizer.func_or_class(config, ModelsConfig(allow_unpinned=True))
    await diarizer.check_health()
    dead = fails(RuntimeError("CUDA error: an illegal memory access was encountered"))
    monkeypatch.setattr(diarizer._engine.get()._segmenting, "_work", dead)
    with pytest.raises(DeviceError):
        await diarizer.segment(talk, Span(start_s=0, end_s=25))
    with pytest.raises(DeviceError):
        await diarizer.check_health()


def small(work: Any, most: int) -> Any:
    def at_most(windows: Any) -> Any:
        if len(windows) > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return work(windows)

    return at_most


def fails(error: Exception) -> Any:
    def work(_: Any) -> Any:
        raise error

    return work


def test_the_version_names_the_pipeline() -> None:
    """The result tells which pipeline diarized, by name or by its directory's last part."""
    assert diarizer_config.model_version(DiarizerConfig()) == "pyannote-ge2e"
    named = DiarizerConfig(engine="pyannote")
    assert diarizer_config.model_version(named) == "pyannote-speaker-diarization-community-1"
    assert diarizer_config.model_version(DiarizerConfig(engine="pyannote", model="/models/mine")) == "pyannote-mine"
