"""The engine `wav2vec2`: a trained audio classifier of the transformers library.

Classifies windows of each segment's own sound, so that windows of several jobs can be classified in one call. Runs no
code that comes with a model. Refuses one with missing weights: transformers would replace them by random numbers.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.batch_backoff import BatchBackoff
from deployments.device import check_device, release_memory
from deployments.errors import ModelLoadError
from deployments.lean_imports import as_if_not_installed
from deployments.types import SAMPLE_RATE_HZ, Audio, Emotion

with as_if_not_installed("pandas", "rich", "sklearn", "torchvision"):
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.emotion.config import EmotionConfig
    from deployments.types import Segment, Span, Tracks

Shares: TypeAlias = NDArray[np.float32]
"""Shape (names,), float32, 0-1, sum 1: how likely each emotion is."""

SHORTEST_S = 1.0
LONGEST_S = 15.0
GRID_S = 0.25
"""Step of window lengths, so that windows of many segments can be batched without padding, which would change the
answers of some networks. Less than half of it is left out at each edge of a segment: with as much of its neighbours
instead, which may be 20 dB louder, a soft segment got their emotion."""

SHORTEST, LONGEST, GRID = (round(length_s * SAMPLE_RATE_HZ) for length_s in (SHORTEST_S, LONGEST_S, GRID_S))

_OTHER_NAMES = {
    "neutral": "neu calm",
    "happy": "hap happiness joy joyful exc excited",
    "sad": "sadness",
    "angry": "ang anger",
    "fearful": "fear fea",
    "disgusted": "disgust dis",
    "surprised": "surprise sur ps pleasant_surprise",
}
"""Data sets name moods differently: IEMOCAP `neu hap exc ang sad`, RAVDESS `calm`, TESS `ps` (pleasant surprise)."""
KNOWN = {other: name for name, others in _OTHER_NAMES.items() for other in (name, *others.split())}


class ClassifierEngine:
    """Classifies by the model that `config.model` names."""

    def __init__(self, config: EmotionConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self._extractor, self._model = load(config)
        labels = self._model.config.id2label
        self.names, self._sums = merged([labels[i] for i in range(len(labels))])
        self._backoff: BatchBackoff[Audio, Shares] = BatchBackoff(
            self._forward, max_batch=config.batch_size, relieve=partial(release_memory, config.device), stage="emotion"
        )

    def cut(
        self,
        audio: Audio,
        tracks: Tracks | None,  # noqa: ARG002  the model uses the audio itself
        segments: Sequence[Segment],
    ) -> list[list[Audio]]:
        """See `EmotionEngine`: returns a segment's windows, none where it lies outside the audio."""
        return [cut_windows(audio, segment) for segment in segments]

    def judge(self, items: Sequence[Audio]) -> list[Shares | Exception]:
        """See `EmotionEngine`: returns how likely each of `names` is in each window, shape (names,), sum 1.

        Only windows of the same length are batched, so that none is padded.
        """
        by_length: dict[int, list[int]] = defaultdict(list)
        for at, window in enumerate(items):
            by_length[len(window)].append(at)
        answers: dict[int, Shares | Exception] = {}
        for same in by_length.values():
            answers.update(zip(same, self._backoff([items[at] for at in same]), strict=True))
        return [answers[at] for at in range(len(items))]

    def mood(self, answers: Sequence[Shares]) -> Emotion | None:
        """See `EmotionEngine`: the label with the largest mean share."""
        if not answers:
            return None
        mean = np.mean(answers, axis=0)
        if not np.isfinite(mean).all():
            raise ValueError("the classifier's shares are not finite")
        best = int(mean.argmax())
        return Emotion(label=self.names[best], confidence=min(1.0, float(mean[best])))

    def weight_s(self, item: Audio) -> float:
        """See `EmotionEngine`."""
        return len(item) / SAMPLE_RATE_HZ

    def check(self) -> None:
        """Raise DeviceError where the device has failed."""
        self._backoff.check()
        check_device(self.config.device)

    def _forward(self, windows: Sequence[Audio]) -> list[Shares]:
        """Run the network on `windows` of one length."""
        sounds = [window.astype(np.float32) / 2**15 for window in windows]
        features = self._extractor(sounds, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**features.to(self.device)).logits
            probabilities: NDArray[np.float32] = logits.float().softmax(dim=-1).cpu().numpy()
        return list(probabilities @ self._sums)


def load(config: EmotionConfig) -> tuple[Any, Any]:
    """Load feature extractor and model. Raises ModelLoadError if the model is missing, broken or no classifier."""
    name = config.model
    options = {"trust_remote_code": False, "local_files_only": True}
    try:
        extractor = AutoFeatureExtractor.from_pretrained(name, **options)
        model, report = AutoModelForAudioClassification.from_pretrained(name, **options, output_loading_info=True)
        model = model.to(config.device).eval()
    except Exception as error:
        raise ModelLoadError(f"emotion model {name} cannot be loaded: {type(error).__name__}") from error
    if unfit := report["missing_keys"] or report["mismatched_keys"]:
        raise ModelLoadError(f"emotion model {name} is no complete audio classifier: it lacks {min(unfit)}")
    if model.config.problem_type == "regression" or model.config.num_labels < 2:  # noqa: PLR2004 - a choice needs two
        raise ModelLoadError(f"emotion model {name} gives measures, not labels")
    if extractor.sampling_rate != SAMPLE_RATE_HZ:
        raise ModelLoadError(f"emotion model {name} hears {extractor.sampling_rate} Hz, not {SAMPLE_RATE_HZ}")
    return extractor, model


def cut_windows(audio: Audio, span: Span) -> list[Audio]:
    """Return windows of equal length over `span` of the whole video's `audio`, as views; none outside the audio.

    A segment shorter than `SHORTEST_S` is extended on both sides; one longer than `LONGEST_S` has several windows,
    evenly spread. Zeros are appended only where the video itself is shorter than `SHORTEST_S`.
    """
    first, end = (min(max(0, round(at_s * SAMPLE_RATE_HZ)), len(audio)) for at_s in (span.start_s, span.end_s))
    if end <= first:
        return []
    count = -(-(end - first) // LONGEST)
    length = max(SHORTEST, (end - first) // (count * GRID) * GRID)
    spare = end - first - length
    starts = np.linspace(first, end - length, count) if count > 1 else [first + spare // 2]
    return [_window(audio, round(float(start)), length) for start in starts]


def _window(audio: Audio, start: int, length: int) -> Audio:
    start = max(0, min(start, len(audio) - length))
    window = audio[start : start + length]
    return window if len(window) == length else np.pad(window, (0, length - len(window)))


def renamed(label: str) -> str:
    """Return the one of `LABELS` that `label` means, else `label` in lower case."""
    plain = label.strip().lower()
    return KNOWN.get(plain.replace(" ", "_"), plain)


def merged(labels: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Return the distinct names of `labels`, and the matrix that sums their shares: (labels, names), 0 or 1."""
    renamed_labels = [renamed(label) for label in labels]
    names = tuple(dict.fromkeys(renamed_labels))
    sums = np.array([[label == name for name in names] for label in renamed_labels], np.float32)
    return names, sums
