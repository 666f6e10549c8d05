"""Acoustic models: which letter sounds when. wav2vec2 with CTC, as transformers has it.

Knows nothing of words or transcripts. The convolutions at the front run utterance by utterance and only the
transformer behind them on padded and masked batches: in models with group norm (all of the base size) each value of
the front end depends on the whole input, padding included, so that a padded batch would change its members' answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from deployments.aligner.vocabulary import Vocabulary, vocabulary
from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from deployments.types import Audio

INT16_RANGE: Final = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class AcousticModel:
    """A loaded model. Used by several threads at once it gives each its own answer."""

    vocabulary: Vocabulary
    min_samples: int
    """The receptive field of one frame: audio shorter than this has no frames."""
    device: str
    prepare: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """The input's scaling, shape (samples,)."""
    front: Callable[[torch.Tensor], torch.Tensor]
    """Shape (1, samples) → (1, frames, channels)."""
    rear: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Shapes (batch, frames, channels) and (batch,), the true number of frames → (batch, frames, labels), logits."""

    def emissions(self, audios: Sequence[Audio]) -> list[torch.Tensor]:
        """For each of `audios` the log-probabilities of the labels: shape (frames, labels), float32, on the CPU.

        An answer depends on its neighbours by rounding only (1e-4 of a log-probability at most, as tested).

        Raises:
            ValueError: an audio is shorter than `min_samples`.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        if any(len(audio) < self.min_samples for audio in audios):
            raise ValueError(f"audio is shorter than {self.min_samples} samples")
        with torch.inference_mode():
            features = [self.front(self._input(audio))[0] for audio in audios]
            lengths = torch.tensor([len(each) for each in features], device=self.device)
            scores = self.rear(pad_sequence(features, batch_first=True), lengths)
            log_probs = torch.log_softmax(scores.float(), dim=-1).cpu()
        return [each[:length] for each, length in zip(log_probs, lengths.tolist(), strict=True)]

    def _input(self, audio: Audio) -> torch.Tensor:
        import torch

        samples = self.prepare(audio.astype(np.float32) / np.float32(INT16_RANGE))
        return torch.from_numpy(samples)[None].to(self.device)


def load(name: str, device: str) -> AcousticModel:
    """A `Wav2Vec2ForCTC` with its processor's two halves. No code of the repository runs; safetensors are preferred.

    The halves and not the whole, which guesses, with a warning, where an older repository does not name its classes.

    Raises:
        OSError: no such model here, and none to be had.
        ValueError: not a wav2vec2 model with CTC, or one with layers that this module does not know.
    """
    import torch
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    tokenizer: Any = Wav2Vec2CTCTokenizer.from_pretrained(name, trust_remote_code=False)
    extractor: Any = Wav2Vec2FeatureExtractor.from_pretrained(name, trust_remote_code=False)
    model: Any = Wav2Vec2ForCTC.from_pretrained(name, trust_remote_code=False).eval().to(device)
    if model.config.add_adapter:
        raise ValueError(f"{name} has an adapter behind its encoder, which is not supported")
    body = model.wav2vec2

    def prepare(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = extractor(samples, sampling_rate=SAMPLE_RATE_HZ).input_values[0]
        return scaled

    def rear(features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        hidden, _ = body.feature_projection(features)
        mask = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
        logits: torch.Tensor = model.lm_head(body.encoder(hidden, attention_mask=mask)[0])
        return logits

    labels = tokenizer.get_vocab()
    return AcousticModel(
        vocabulary=vocabulary(
            labels,
            size=model.lm_head.out_features,
            blank=tokenizer.pad_token_id,
            delimiter=labels.get(tokenizer.word_delimiter_token),
        ),
        min_samples=receptive_field(body.feature_extractor),
        device=device,
        prepare=prepare,
        front=lambda audio: body.feature_extractor(audio).transpose(1, 2),
        rear=rear,
    )


def receptive_field(front: Any) -> int:
    """Samples that one frame of the convolutions `front` sees."""
    samples = 1
    for layer in reversed(front.conv_layers):
        samples = (samples - 1) * layer.conv.stride[0] + layer.conv.kernel_size[0]
    return samples
