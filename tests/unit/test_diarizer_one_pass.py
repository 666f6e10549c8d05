"""The voice encoder that runs once over the sound: its frames, its windows, and what becomes of the speakers."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import torch

from deployments.diarizer import one_pass
from deployments.diarizer.config import DiarizerConfig
from deployments.diarizer.one_pass import MARGIN, STRIDE, OnePassEncoder, has_one_pass
from deployments.diarizer.registry import create
from deployments.speech_detector.network import Grid
from deployments.types import SAMPLE_RATE_HZ, pieces
from tests.benchmarks.bench_diarization import Recording, diarization_errors, meetings
from tests.support import real_models

if TYPE_CHECKING:
    from deployments.types import Audio

DIALOGUES = Path(__file__).parents[1] / "data" / "dialogues"
WINDOW_S = 2.0
BLOCK = 240


@pytest.fixture(scope="module")
def model() -> Any:
    """WeSpeaker's ResNet34 with random weights."""
    import deployments.diarizer.piecewise  # noqa: F401, I001 - imports pyannote quietly
    from pyannote.audio.models.embedding import WeSpeakerResNet34

    torch.manual_seed(0)
    return WeSpeakerResNet34().eval()


@pytest.fixture
def encoder(model: Any, monkeypatch: pytest.MonkeyPatch) -> OnePassEncoder:
    """In small blocks."""
    monkeypatch.setattr(one_pass, "BLOCK", BLOCK)
    device = torch.device("cpu")
    return OnePassEncoder(model, window_s=WINDOW_S, device=device, batch_size=8, relieve=lambda: None)


@pytest.fixture(scope="module")
def talk() -> Audio:
    """9 s of two voices."""
    audio: Audio = soundfile.read(DIALOGUES / "tune_2a.ogg", dtype="int16")[0][: 9 * SAMPLE_RATE_HZ]
    return audio


def grid_of(audio: Audio) -> Grid:
    return Grid(samples=len(audio), step_s=1.0, window_s=WINDOW_S)


def masks_for(windows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One speaker all the time, one in the first half."""
    masks = np.ones((windows, 100, 2), np.float32)
    masks[:, 50:, 1] = 0
    return masks


def test_blocks_give_the_frames_of_the_whole(encoder: OnePassEncoder, model: Any) -> None:
    """With their margins: the frames at a block's ends are those of one pass over everything."""
    with torch.inference_mode():
        features = torch.randn(3 * BLOCK + 90, 80, generator=torch.Generator().manual_seed(0))
        whole = model.resnet.forward_frames(features[None])[0]
        frames = encoder._frames(features, [range(whole.shape[-1])])
    torch.testing.assert_close(frames, whole, atol=1e-4, rtol=1e-3)
    assert MARGIN % STRIDE == 0


class Clock:
    """A network that reads the time off the sound, and whose vectors are the mean time of what is pooled."""

    def __init__(self) -> None:
        self.hparams = SimpleNamespace(fbank_centering_span=None)
        self.resnet = self

    def compute_fbank(self, waveforms: torch.Tensor) -> torch.Tensor:
        """The first sample of each, which counts the features from the beginning of the sound."""
        return waveforms[:, 0, ::160, None][:, :-2] * 2**15

    def num_frames(self, samples: int) -> int:
        return -(-(samples // 160 - 2) // STRIDE)

    def forward_frames(self, features: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.mean(dim=1) for part in features.split(STRIDE, dim=1)], dim=-1)

    def forward_embedding(self, frames: torch.Tensor, weights: torch.Tensor) -> tuple[None, torch.Tensor]:
        weights = torch.nn.functional.interpolate(weights, size=frames.shape[-1])
        return None, torch.einsum("ncf,nsf->nsc", frames, weights) / weights.sum(dim=-1, keepdim=True)


def test_each_window_pools_its_own_frames(talk: Audio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its vectors are of the time that its masks say: the middle of the window, and of its first half."""
    monkeypatch.setattr(one_pass, "BLOCK", BLOCK)
    model, device = Clock(), torch.device("cpu")
    encoder = OnePassEncoder(model, window_s=WINDOW_S, device=device, batch_size=3, relieve=lambda: None)
    assert model.hparams.fbank_centering_span == WINDOW_S
    ticking = (np.arange(len(talk)) // 160).astype(np.int16)
    for numbers in ([1, 2, 3, 5, 6], [0, 7], [4]):
        found = np.stack(encoder.voices(ticking, grid_of(talk), numbers, masks_for(len(numbers))))[..., 0]
        starts = 100 * np.array(numbers)
        np.testing.assert_allclose(found, np.stack([starts + 100, starts + 50], axis=1), atol=STRIDE)


def test_a_window_does_not_depend_on_the_piece(encoder: OnePassEncoder, talk: Audio) -> None:
    """Alone, or with windows before and behind it: the same vectors."""
    grid = grid_of(talk)
    together = encoder.voices(talk, grid, [1, 2, 3, 5], masks_for(4))
    for at, number in ((1, 2), (2, 3)):
        [alone] = encoder.voices(talk, grid, [number], masks_for(1))
        np.testing.assert_allclose(alone, together[at], atol=1e-4)


def test_the_last_window_may_reach_past_the_end(encoder: OnePassEncoder, talk: Audio) -> None:
    """As if silence followed up to its end."""
    cut = talk[: 2 * SAMPLE_RATE_HZ + 5000]
    padded = np.concatenate([cut, np.zeros(SAMPLE_RATE_HZ - 5000, np.int16)])
    found, expected = (encoder.voices(each, grid_of(cut), [0, 1], masks_for(2)) for each in (cut, padded))
    np.testing.assert_array_equal(found, expected)


def test_blocks_without_speech_are_not_encoded(
    encoder: OnePassEncoder, model: Any, talk: Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only the first and the last window have speech, one block of the four is left out."""
    encoded = []
    forward = model.resnet.forward_frames
    monkeypatch.setattr(model.resnet, "forward_frames", lambda given: encoded.append(len(given)) or forward(given))
    found = encoder.voices(talk, grid_of(talk), [0, 7], masks_for(2))
    assert sum(encoded) == 3
    assert np.isfinite(found).all()


def test_a_lack_of_memory_costs_time_and_no_vector(
    encoder: OnePassEncoder, model: Any, talk: Audio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that does not fit is repeated in halves."""
    grid = grid_of(talk)
    numbers = list(range(grid.count))
    expected = encoder.voices(talk, grid, numbers, masks_for(len(numbers)))
    forward = model.resnet.forward_frames

    def small(given: torch.Tensor) -> Any:
        if len(given) > 1:
            raise RuntimeError("CUDA out of memory")
        return forward(given)

    monkeypatch.setattr(model.resnet, "forward_frames", small)
    found = encoder.voices(talk, grid, numbers, masks_for(len(numbers)))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_other_encoders_run_once_per_window() -> None:
    """XVectors have another structure."""
    import deployments.diarizer.piecewise  # noqa: F401, I001 - imports pyannote quietly
    from pyannote.audio.models.embedding import WeSpeakerResNet34, XVectorMFCC

    assert has_one_pass(WeSpeakerResNet34())
    assert not has_one_pass(WeSpeakerResNet34(frame_shift=5.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its filters
        assert not has_one_pass(XVectorMFCC())


@real_models.needs("community-1", "ami")
def test_the_speakers_are_those_of_pyannotes_vectors() -> None:
    """Real weights on real meetings: within half a point of DER, pooled, where each window is encoded alone."""
    pipeline = real_models.part("community-1")
    once, alone = (
        create(DiarizerConfig(engine="pyannote", model=str(pipeline), encode_once=each)) for each in (True, False)
    )
    errors = {True: 0.0, False: 0.0}
    for meeting in (joined(meetings()[:2]), meetings()[-1]):
        parts = list(pieces(meeting.duration_s, 60))
        scores = [alone.segment(meeting.audio, part) for part in parts]
        for engine in (once, alone):
            turns = engine.cluster(scores, [engine.embed(meeting.audio, each) for each in scores])
            errors[engine is once] += diarization_errors(meeting, turns)[0] * meeting.duration_s / 90
    assert errors[True] == pytest.approx(errors[False], abs=0.005)


def joined(parts: list[Recording]) -> Recording:
    """One after the other, with voices of their own."""
    reference = [
        (start_s + at * 30, end_s + at * 30, f"{at}{voice}")
        for at, part in enumerate(parts)
        for start_s, end_s, voice in part.reference
    ]
    audio = np.concatenate([part.audio[: 30 * SAMPLE_RATE_HZ] for part in parts])
    return Recording(name="joined", audio=audio, reference=reference)
