"""Acoustic models, which give the probability of each letter over time: wav2vec2 with CTC, from transformers.

Knows nothing of words or transcripts. The convolutional front end runs utterance by utterance, and only the transformer
behind it on padded and masked batches: in models with group norm (all of base size) each value of the front end depends
on the whole input, so that padding would change the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from deployments.aligner.vocabulary import Vocabulary, vocabulary
from deployments.lean_imports import as_if_not_installed
from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from deployments.types import Audio

INT16_RANGE: Final = 32768


class AcousticModel:
    """A loaded `Wav2Vec2ForCTC` with its feature extractor. Safe to call from several threads."""

    def __init__(self, model: Any, extractor: Any, labels: Vocabulary, device: str) -> None:
        self._head = model.lm_head
        self._body = model.wav2vec2
        self._extractor = extractor
        self._device = device
        self.vocabulary = labels
        self.min_samples = receptive_field(self._body.feature_extractor)
        """Receptive field of one frame: shorter audio has no frames."""

    def emissions(self, audios: Sequence[Audio]) -> list[torch.Tensor]:
        """Return the labels' log-probabilities for each of `audios`: shape (frames, labels), float32, on the CPU.

        Other audios of the batch change an answer by rounding only (at most 1e-4, as tested). Raises ValueError where
        one is shorter than `min_samples`.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        if any(len(audio) < self.min_samples for audio in audios):
            raise ValueError(f"audio is shorter than {self.min_samples} samples")
        with torch.inference_mode():
            features = [self._front(audio) for audio in audios]
            lengths = torch.tensor([len(each) for each in features], device=self._device)
            padded = pad_sequence(features, batch_first=True)
            mask = torch.arange(padded.shape[1], device=self._device) < lengths[:, None]
            hidden, _ = self._body.feature_projection(padded)
            scores = self._head(self._body.encoder(hidden, attention_mask=mask)[0])
            log_probs = torch.log_softmax(scores.float(), dim=-1).cpu()
        return [each[:length] for each, length in zip(log_probs, lengths.tolist(), strict=True)]

    def _front(self, audio: Audio) -> torch.Tensor:
        """Return what the convolutional front end makes of `audio`: shape (frames, channels)."""
        import torch

        samples = audio.astype(np.float32) / np.float32(INT16_RANGE)
        scaled = self._extractor(samples, sampling_rate=SAMPLE_RATE_HZ).input_values[0]
        features: torch.Tensor = self._body.feature_extractor(torch.from_numpy(scaled)[None].to(self._device))
        return features.transpose(1, 2)[0]


def load(name: str, device: str) -> AcousticModel:
    """Load a `Wav2Vec2ForCTC` with its tokenizer and feature extractor. Runs no code of the model's repository.

    Tokenizer and extractor are loaded apart: their common processor class guesses for older repositories.

    Raises:
        OSError: The model is not available.
        ValueError: It is not a wav2vec2 model with CTC, or it has layers that this module does not know.
    """
    with as_if_not_installed("pandas", "rich", "sklearn", "torchvision"):
        from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    tokenizer: Any = Wav2Vec2CTCTokenizer.from_pretrained(name, trust_remote_code=False)
    extractor: Any = Wav2Vec2FeatureExtractor.from_pretrained(name, trust_remote_code=False)
    model: Any = Wav2Vec2ForCTC.from_pretrained(name, trust_remote_code=False).eval().to(device)
    if model.config.add_adapter:
        raise ValueError(f"{name} has an adapter behind its encoder, which is not supported")
    labels = tokenizer.get_vocab()
    known = vocabulary(
        labels,
        size=model.lm_head.out_features,
        blank=tokenizer.pad_token_id,
        delimiter=labels.get(tokenizer.word_delimiter_token),
    )
    return AcousticModel(model, extractor, known, device)


def receptive_field(front: Any) -> int:
    """Return the receptive field, in samples, of one frame of the convolutions `front`."""
    samples = 1
    for layer in reversed(front.conv_layers):
        samples = (samples - 1) * layer.conv.stride[0] + layer.conv.kernel_size[0]
    return samples
