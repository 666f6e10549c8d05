"""The engine `wav2vec2`: a trained audio classifier of the transformers library.

Knows nothing of Ray or jobs. Classifies windows of each segment's own sound, so that windows of several jobs can be
classified in one call. Runs no code that comes with a model, and refuses a model with missing weights: transformers
would replace them by random numbers.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from deployments.batch_backoff import BatchBackoff
from deployments.device import check_device, release_memory
from deployments.emotion.labels import merged
from deployments.emotion.windows import cut_windows
from deployments.errors import ModelLoadError
from deployments.types import SAMPLE_RATE_HZ, Emotion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.emotion.config import EmotionConfig
    from deployments.types import Audio, Segment, Tracks

Shares: TypeAlias = NDArray[np.float32]
"""Shape (names,), float32, 0-1, sum 1: how likely each emotion is."""


class ClassifierEngine:
    """Classifies by the model that `config.model` names.

    Raises:
        ModelLoadError: The model is missing, broken or no classifier; the message names it.
    """

    def __init__(self, config: EmotionConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self._extractor, self._model = load(config)
        labels = self._model.config.id2label
        self.names, self._sums = merged([labels[i] for i in range(len(labels))])
        self._backoff: BatchBackoff[Audio, Shares] = BatchBackoff(
            self._forward,
            max_batch=config.batch_size,
            relieve=partial(release_memory, config.device),
            stage="emotion",
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
    """Load the feature extractor, and the model on its device.

    Raises:
        ModelLoadError: See `ClassifierEngine`.
    """
    name = config.model
    options = {"trust_remote_code": False, "local_files_only": True}
    try:
        extractor = AutoFeatureExtractor.from_pretrained(name, **options)  # type: ignore[no-untyped-call]
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
