"""The trained classifier on a small model of the real kind and voices whose manner is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from deployments.emotion import config as emotion
from deployments.emotion.classifier import ClassifierEngine, cut_windows
from deployments.emotion.config import EmotionConfig
from deployments.emotion.protocol import analyze
from deployments.emotion.registry import create
from deployments.errors import DeviceError, ModelLoadError
from deployments.types import SAMPLE_RATE_HZ, Audio, Segment
from tests.support.synthetic_voice import MANNERS, speak

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = Path(__file__).parents[1] / "models" / "emotion"
NAMES = {"sad": "sad", "neu": "neutral", "ang": "angry"}


def engine_on(model: Path = MODEL, **settings: Any) -> ClassifierEngine:
    made = create(EmotionConfig(engine="wav2vec2", model=str(model), **settings))
    assert isinstance(made, ClassifierEngine)
    return made


@pytest.fixture(scope="module")
def engine() -> ClassifierEngine:
    return engine_on()


def segment(start_s: float, end_s: float) -> Segment:
    return Segment(start_s=start_s, end_s=end_s, speaker=0, words=())


def scene(lengths_s: Sequence[float], seed: int = 7) -> tuple[Audio, list[Segment], list[str]]:
    """Clips one after the other, read-only, with their segments and moods."""
    draw = np.random.default_rng(seed)
    moods = [list(MANNERS)[i % len(MANNERS)] for i in range(len(lengths_s))]
    audio = np.concatenate([speak(draw, MANNERS[mood], s) for mood, s in zip(moods, lengths_s, strict=True)])
    audio.flags.writeable = False
    ends = np.cumsum(lengths_s)
    segments = [segment(float(end - s), float(end)) for end, s in zip(ends, lengths_s, strict=True)]
    return audio, segments, [NAMES[mood] for mood in moods]


def shares(engine: ClassifierEngine, windows: Sequence[Audio]) -> np.ndarray:
    """Shape (windows, moods)."""
    return np.stack([answer for answer in engine.judge(windows) if not isinstance(answer, Exception)])


LENGTHS_S = (1.0, 1.0, 1.0, 1.7, 2.3, 2.0, 3.0, 1.4, 5.0, 8.0, 2.0, 1.0, 20.0, 31.0, 17.0)


def test_the_manner_is_told(engine: ClassifierEngine) -> None:
    """Clips that the model was not made on, of 1 to 31 s: the right label for each, by a share of more than a half."""
    audio, segments, moods = scene(LENGTHS_S)
    judged = analyze(engine, audio, None, segments)
    assert [each and each.label for each in judged] == moods
    assert all(each and 0.5 < each.confidence <= 1 for each in judged)


def test_batches_change_nothing(engine: ClassifierEngine) -> None:
    """One by one, eight at once, or among another job's segments: the same shares, to float32's rounding (1e-5)."""
    audio, segments, _ = scene(LENGTHS_S)
    other, other_segments, _ = scene((1.0, 2.5, 2.0, 1.0, 20.0), seed=8)
    windows = [window for each in segments for window in cut_windows(audio, each)]
    others = [window for each in other_segments for window in cut_windows(other, each)]
    alone = shares(engine_on(batch_size=1), windows)
    np.testing.assert_allclose(shares(engine, windows), alone, atol=1e-5)
    np.testing.assert_allclose(shares(engine, [*others, *windows])[len(others) :], alone, atol=1e-5)
    np.testing.assert_allclose(alone.sum(axis=1), 1, atol=1e-6)


def test_shares_are_the_models_own(engine: ClassifierEngine) -> None:
    """The confidence is the softmax of the model's own answer to the sound; a long segment's is its windows' mean."""
    from transformers import Wav2Vec2ForSequenceClassification

    audio, segments, moods = scene((2.0, 2.0, 20.0))
    model = Wav2Vec2ForSequenceClassification.from_pretrained(MODEL)
    judged = analyze(engine, audio, None, segments)
    scores = []
    for start_s, end_s in [(0, 2), (2, 4), (4, 14), (14, 24)]:
        wave = torch.from_numpy(audio[start_s * SAMPLE_RATE_HZ : end_s * SAMPLE_RATE_HZ].astype(np.float32) / 2**15)
        with torch.inference_mode():
            shares = model(wave[None]).logits.softmax(-1)[0].tolist()
        scores.append({NAMES[model.config.id2label[i]]: share for i, share in enumerate(shares)})
    first, second, third = (each.confidence for each in judged if each)
    assert first == pytest.approx(scores[0][moods[0]], abs=1e-5)
    assert second == pytest.approx(scores[1][moods[1]], abs=1e-5)
    assert third == pytest.approx((scores[2][moods[2]] + scores[3][moods[2]]) / 2, abs=1e-5)


def test_odd_segments(engine: ClassifierEngine) -> None:
    """A word of 0.05 s is judged with what is around it; silence is judged; beyond the sound there is no judgement."""
    audio, _, _ = scene((3.0, 3.0, 3.0))
    quiet = np.zeros(SAMPLE_RATE_HZ, np.int16)
    quiet.flags.writeable = False
    (short,) = analyze(engine, audio, None, [segment(7.5, 7.55)])
    assert short
    assert short.label == "angry"
    assert analyze(engine, quiet, None, [segment(0, 1)]) != [None]
    assert analyze(engine, audio, None, [segment(20, 21), segment(3, 3)]) == [None, None]
    assert analyze(engine, quiet[:0], None, [segment(0, 1)]) == [None]
    assert analyze(engine, audio, None, []) == []


def test_work_comes_in_parts() -> None:
    """All segments, in order, in parts of no more than `batch_s` of speech, but for one that is longer alone."""
    config = EmotionConfig(engine="wav2vec2", batch_s=60)
    segments = [segment(i * 10.0, i * 10.0 + length) for i, length in enumerate((20, 20, 20, 5, 100, 5, 60, 1))]
    parts = emotion.parts(config, segments)
    assert [each for part in parts for each in part] == segments
    assert [sum(each.duration_s for each in part) <= 60 or len(part) == 1 for part in parts] == [True] * len(parts)
    assert [len(part) for part in parts] == [3, 1, 1, 1, 1, 1]
    assert emotion.parts(config, []) == [[]]
    assert emotion.parts(EmotionConfig(), segments) == [segments]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError("std::bad_alloc")],
    ids=repr,
)
def test_too_little_memory_halves_the_batch(error: Exception) -> None:
    """The network has room for two windows: each is judged as with room for all, and the replica stays."""
    audio, segments, _ = scene((1.0,) * 8)
    narrow, sizes = engine_on(), []
    network = narrow._model

    def small(input_values: torch.Tensor, **more: Any) -> Any:
        sizes.append(len(input_values))
        if len(input_values) > 2:
            raise error
        return network(input_values, **more)

    small.config = network.config  # type: ignore[attr-defined]
    expected = analyze(narrow, audio, None, segments)
    narrow._model = small
    for ours, alone in zip(analyze(narrow, audio, None, segments), expected, strict=True):
        assert ours
        assert alone
        assert (ours.label, ours.confidence) == (alone.label, pytest.approx(alone.confidence, abs=1e-5))
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    narrow.check()


@pytest.mark.parametrize("text", ["CUDA out of memory", "CUDA error: an illegal memory access was encountered"])
def test_a_lost_device_is_the_replicas_end(text: str) -> None:
    """No memory for one window, or a dead context: an error that another replica may heal, and the check fails."""
    audio, segments, _ = scene((1.0,) * 3)
    lost = engine_on()
    lost.check()

    def dead(*_: Any, **__: Any) -> Any:
        raise RuntimeError(text)

    lost._model = dead
    with pytest.raises(DeviceError):
        analyze(lost, audio, None, segments)
    with pytest.raises(DeviceError):
        lost.check()


def changed(directory: Path, **content: Any) -> Path:
    """A copy of the model with another config.json."""
    shutil.copytree(MODEL, directory)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    return directory


def test_moods_of_one_name_are_one(engine: ClassifierEngine, tmp_path: Path) -> None:
    """Where a model tells `calm` from `neutral`, we do not: the shares add up. A label of no mood passes."""
    labels = {"0": "Calm", "1": "Bored", "2": "neutral"}
    other = engine_on(changed(tmp_path / "m", id2label=labels, label2id={v: int(k) for k, v in labels.items()}))
    audio, segments, _ = scene((1.0, 1.0, 1.0))
    windows = [window for each in segments for window in cut_windows(audio, each)]
    assert other.names == ("neutral", "bored")
    before = shares(engine, windows)
    np.testing.assert_allclose(
        shares(other, windows), np.stack([before[:, 0] + before[:, 2], before[:, 1]], 1), atol=1e-6
    )


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_broken_model_is_named(tmp_path: Path, file: str) -> None:
    """Missing altogether, or one file missing or cut in half: an error with the model's name at start."""
    with pytest.raises(ModelLoadError, match="emotion model /nowhere/at all"):
        engine_on(Path("/nowhere/at all"))
    broken = changed(tmp_path / "broken") / file
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelLoadError, match=str(broken.parent)):
        engine_on(broken.parent)
    broken.unlink()
    with pytest.raises(ModelLoadError, match=str(broken.parent)):
        engine_on(broken.parent)


def test_a_model_without_its_last_layer_is_refused(tmp_path: Path) -> None:
    """Where transformers would put random numbers for missing weights, the replica does not start."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(MODEL / "model.safetensors")
    directory = changed(tmp_path / "base")
    kept = {name: array for name, array in weights.items() if not name.startswith("classifier")}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"lacks classifier\.bias"):
        engine_on(directory)


def test_what_gives_no_labels_is_refused(tmp_path: Path) -> None:
    """A model of valence and arousal has outputs, but they are no moods."""
    with pytest.raises(ModelLoadError, match="measures, not labels"):
        engine_on(changed(tmp_path / "regression", problem_type="regression"))


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    """A model of a kind of its own is refused, and its Python file is not touched."""
    directory = changed(
        tmp_path / "evil",
        model_type="evil",
        auto_map={"AutoConfig": "evil.Evil", "AutoModelForAudioClassification": "evil.Evil"},
    )
    ran = tmp_path / "ran"
    (directory / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(ModelLoadError, match="evil"):
        engine_on(directory)
    assert not ran.exists()


def test_a_device_that_is_not_there_ends_the_start() -> None:
    """With the setting's name, before the model is read."""
    with pytest.raises(ModelLoadError, match=r"^emotion.device is cuda:99, but torch cannot compute there: "):
        engine_on(Path("/nowhere/at all"), device="cuda:99")


def test_the_result_names_the_model() -> None:
    """Its version is the model's name; there is nothing to disclose of a trained model."""
    config = EmotionConfig(engine="wav2vec2")
    assert emotion.model_version(config) == "wav2vec2-base-superb-er"
    assert emotion.warnings(config, []) == ()
    assert emotion.model_version(EmotionConfig(engine="wav2vec2", model="/models/mine")) == "mine"
