"""Make the small aligner beside this file: a wav2vec2 with a CTC head, for English and Korean in one.

Run by hand: `python -m tests.models.make_aligner`; commands, time and Debian packages are in README.md. Seeded and
counted in steps, so that the same versions on the same machine give the same weights. It learns each letter's frame
from the synthesizers' own times, and the letters' order by CTC.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from tests.models.recipe import corpus
from tests.models.recipe.spikes import BLANK, LETTERS, NUMBERS, ClipMaker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tests.models.recipe.corpus import Utterance

OUT = Path(__file__).parent / "aligner"
WORK = Path("build") / "small-models"

WIDTH = 96
STEPS = 2700
BATCH = 10
LEARNING_RATE = 3e-3
WARM_UP = 100
LEAST_RATE = 0.02
"""Of the learning rate, at the end of its cosine."""
BLANK_WEIGHT = 0.5
CTC_WEIGHTS = (0.02, 0.1)
CTC_LATER = 0.15
"""From this share of the training on the second of the weights holds."""
REPORT = 50
NONE = dict.fromkeys(
    (
        *("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout"),
        *("layerdrop", "mask_time_prob"),
    ),
    0.0,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Synthesize what is missing, train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--share", type=float, default=1.0, help="of the corpus, where it is made anew")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    said = corpus.kept_in(options.work, share=options.share, seed=options.seed)
    save(train(said, steps=options.steps, seed=options.seed), options.out)


def train(said: Sequence[Utterance], *, steps: int, seed: int) -> Wav2Vec2ForCTC:
    """The network after `steps`."""
    torch.manual_seed(seed)
    model = Wav2Vec2ForCTC(configuration()).train()
    clips = ClipMaker(said, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    for step in range(steps):
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (LEAST_RATE + (1 - LEAST_RATE) * cosine)
        sounds, frames, letters = clips.batch(BATCH)
        logits = model(sounds).logits
        framewise, ctc = _losses(logits, frames, letters)
        optimizer.zero_grad()
        (framewise + CTC_WEIGHTS[step > CTC_LATER * steps] * ctc).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % REPORT == REPORT - 1:
            said_frames = frames > 0
            right = ((logits.argmax(-1) == frames) & said_frames).sum() / said_frames.sum()
            print(
                f"step {step + 1}: frames {framewise.item():.3f}, ctc {ctc.item():.3f}, letters right {right:.3f}",
                flush=True,
            )
    return model.eval()


def configuration() -> Wav2Vec2Config:
    """wav2vec2-base, narrow: a quarter of a million weights. Group norm, since layer norm cost five times the time."""
    return Wav2Vec2Config(
        vocab_size=len(LETTERS),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        conv_dim=(16, 32, 48, 64, 64, 64, 96),
        conv_bias=False,
        feat_extract_norm="group",
        do_stable_layer_norm=False,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=8,
        apply_spec_augment=False,
        pad_token_id=NUMBERS[BLANK],
        bos_token_id=NUMBERS["<s>"],
        eos_token_id=NUMBERS["</s>"],
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
        **NONE,
    )


def save(model: Wav2Vec2ForCTC, out: Path) -> None:
    """A folder that transformers and whisperX load."""
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    model.save_pretrained(out)
    vocabulary = out / "vocab.json"
    vocabulary.write_text(json.dumps(NUMBERS, ensure_ascii=False), encoding="utf-8")
    tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary), do_lower_case=True)
    features = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=False)
    Wav2Vec2Processor(features, tokenizer).save_pretrained(out)


def _losses(logits: Tensor, frames: Tensor, letters: list[Tensor]) -> tuple[Tensor, Tensor]:
    """By frame, and by order. `logits`: (batch, frames, letters)."""
    weights = torch.ones(len(LETTERS))
    weights[NUMBERS[BLANK]] = BLANK_WEIGHT
    framewise = functional.cross_entropy(logits.transpose(1, 2), frames, weight=weights)
    ctc = functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        torch.cat(letters),
        torch.full((len(letters),), logits.shape[1]),
        torch.tensor([len(each) for each in letters]),
        blank=NUMBERS[BLANK],
        zero_infinity=True,
    )
    return framewise, ctc


if __name__ == "__main__":
    main()
