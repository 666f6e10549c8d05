"""Make the emotion classifier beside this file: a very small wav2vec2 that tells three manners of a synthetic voice.

Run by hand, a minute on one core: `python -m tests.models.make_emotion`. Seeded and counted in steps, so that the same
versions on the same machine give the same weights. Its labels are IEMOCAP's abbreviations, as those of real models.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

from deployments.types import SAMPLE_RATE_HZ
from tests.support.synthetic_voice import MANNERS, speak

OUT = Path(__file__).parent / "emotion"
LABELS = tuple(MANNERS)
WIDTH = 32
STEPS = 250
BATCH = 16
LENGTHS_S = (1.0, 1.5, 2.0)
LEARNING_RATE = 3e-3


def main() -> None:
    """Train, report, save."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    model = Wav2Vec2ForSequenceClassification(configuration())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    model.train()
    for step in range(STEPS):
        sounds, moods = clips(draw, LENGTHS_S[step % len(LENGTHS_S)])
        loss = functional.cross_entropy(model(sounds).logits, moods, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 24:
            print(f"step {step + 1} loss {loss.item():.3f}", flush=True)
    model.eval()
    for length_s in (1.0, 3.0, 8.0):
        sounds, moods = clips(np.random.default_rng(1), length_s)
        with torch.inference_mode():
            right = (model(sounds).logits.argmax(-1) == moods).float().mean()
        print(f"{length_s} s: {100 * right:.0f} % right")
    model.save_pretrained(OUT)
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=False).save_pretrained(OUT)


def configuration() -> Wav2Vec2Config:
    """wav2vec2-base, narrow; without the input's normalisation, which would take the loudness away."""
    return Wav2Vec2Config(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * WIDTH,
        conv_dim=(WIDTH,) * 7,
        conv_bias=True,
        feat_extract_norm="layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        classifier_proj_size=WIDTH,
        vocab_size=8,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
        apply_spec_augment=False,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )


def clips(draw: np.random.Generator, length_s: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`BATCH` clips, -1 to 1, and the numbers of their labels."""
    moods = draw.integers(len(LABELS), size=BATCH)
    sounds = [speak(draw, MANNERS[LABELS[mood]], length_s).astype(np.float32) / 2**15 for mood in moods]
    assert len(sounds[0]) == length_s * SAMPLE_RATE_HZ
    return torch.from_numpy(np.stack(sounds)), torch.from_numpy(moods)


if __name__ == "__main__":
    main()
