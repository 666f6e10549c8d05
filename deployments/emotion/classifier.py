"""The emotion engine of production: a trained audio classifier of the transformers library, such as wav2vec2.

Knows nothing of Ray or jobs. Judges each segment by its own sound alone, so segments of several jobs can be judged in
one call. Runs no code that comes with a model, and refuses a model whose weights do not fit: transformers would fill
the gaps with random numbers and say so in a log line.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from deployments.emotion.labels import merged
from deployments.emotion.windows import cut_windows
from deployments.errors import ModelLoadError
from deployments.types import SAMPLE_RATE_HZ, Emotion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deployments.emotion.config import EmotionConfig
    from deployments.types import Audio, Segment, Tracks

PART_S = 60.0
"""So much speech is judged at a time: a few seconds of work on a CPU, after which others have their turn."""


class ClassifierEngine:
    """Judges by the model that `config.model` names.

    Raises:
        ModelLoadError: it is missing, broken, or no classifier; the message names it.
    """

    def __init__(self, config: EmotionConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self._extractor, self._model = load(config)
        labels = self._model.config.id2label
        self.names, self._sums = merged([labels[i] for i in range(len(labels))])

    def parts(self, segments: Sequence[Segment]) -> list[Sequence[Segment]]:
        """See `EmotionEngine`: about `PART_S` of speech each."""
        cuts, speech_s = [0], 0.0
        for at, segment in enumerate(segments):
            if speech_s and speech_s + segment.duration_s > PART_S:
                cuts.append(at)
                speech_s = 0.0
            speech_s += segment.duration_s
        return [segments[first:end] for first, end in zip(cuts, [*cuts[1:], len(segments)], strict=True)]

    def analyze(
        self,
        audio: Audio,
        tracks: Tracks,  # noqa: ARG002  the model hears the sound itself
        segments: Sequence[Segment],
    ) -> list[Emotion | None]:
        """See `EmotionEngine`. None where a segment lies outside the sound."""
        return self.judge([cut_windows(audio, segment) for segment in segments])

    def judge(self, segments: Sequence[Sequence[Audio]]) -> list[Emotion | None]:
        """The moods of segments, each given by its windows (`cut_windows`), of whatever jobs.

        A segment's shares are the mean over its windows.
        """
        shares = self.shares([window for windows in segments for window in windows])
        ends = np.cumsum([len(windows) for windows in segments], dtype=int)
        return [self._mood(shares[end - len(windows) : end]) for windows, end in zip(segments, ends, strict=True)]

    def shares(self, windows: Sequence[Audio]) -> NDArray[np.float32]:
        """How likely each of `names` is in each of `windows`: shape (windows, names), rows add up to 1.

        Only windows of the same length go through the network together, so that none is padded.
        """
        by_length: dict[int, list[int]] = defaultdict(list)
        for at, window in enumerate(windows):
            by_length[len(window)].append(at)
        shares = np.empty((len(windows), len(self.names)), np.float32)
        for same in by_length.values():
            for first in range(0, len(same), self.config.batch_size):
                batch = same[first : first + self.config.batch_size]
                shares[batch] = self._forward([windows[at] for at in batch]) @ self._sums
        return shares

    def check(self) -> None:
        """Raise where the device computes no longer: a dead CUDA context stays dead."""
        torch.ones(1, device=self.device).sum().item()

    def _forward(self, windows: Sequence[Audio]) -> NDArray[np.float32]:
        sounds = [window.astype(np.float32) / 2**15 for window in windows]
        features = self._extractor(sounds, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**features.to(self.device)).logits
            probabilities: NDArray[np.float32] = logits.float().softmax(dim=-1).cpu().numpy()
        return probabilities

    def _mood(self, shares: NDArray[np.float32]) -> Emotion | None:
        if not len(shares):
            return None
        mean = shares.mean(axis=0)
        best = int(mean.argmax())
        return Emotion(label=self.names[best], confidence=min(1.0, float(mean[best])))


def load(config: EmotionConfig) -> tuple[Any, Any]:
    """The feature extractor, and the model on its device.

    Raises:
        ModelLoadError: see `ClassifierEngine`.
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
