"""Make the small Whisper beside this file, from nothing or from a checkpoint of it.

Run by hand: `python -m tests.models.make_asr`; commands, time and Debian packages are in README.md. Seeded and counted
in steps, so that the same versions on the same machine give the same weights. Progress goes to the terminal, the
corpus and the checkpoint to `--work`, the model that the tests load to `--out`.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.models.recipe import corpus, whisper
from tests.models.recipe.conversion import convert
from tests.models.recipe.spectra import heard
from tests.models.recipe.tokens import TrainedTokens, build_tokenizer
from tests.models.recipe.windows import IGNORED, QUARTERS, WORDS, WindowMaker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tests.models.recipe.spectra import Heard
    from tests.models.recipe.windows import Batch

OUT = Path(__file__).parent / "asr"
WORK = Path("build") / "small-models"
CHECKPOINT = "asr.pt"

STEPS = 5500
LEARNING_RATE = 2.5e-3
WARM_UP = 100
LEAST_RATE = 0.02
"""Of the learning rate, at the end of its cosine."""
WEIGHT_DECAY = 0.02
LENGTHS = (
    (0.40, ((0.5, 500, 24), (0.5, 900, 12))),
    (0.65, ((0.4, 700, 16), (0.6, 1500, 10))),
    (1.00, ((0.55, 3000, 6), (0.25, 1800, 8), (0.2, 700, 16))),
)
"""Up to which share of the training: how often windows of how many frames, and how many in a batch. Whole windows cost
ten times as much as 7 s, and jumping to them lost accuracy."""
FRAME_WEIGHT, QUARTER_WEIGHT, NEXT_WEIGHT, READ_WEIGHT = 0.5, 0.2, 0.15, 0.1
REPORT, SAVE = 50, 200
SMOOTHING = 0.95


@dataclass(slots=True)
class Student:
    """The network, and a head for training that names each frame's word and the quarter of it."""

    tokens: TrainedTokens
    network: nn.Module = field(init=False)
    frames: nn.Linear = field(init=False)

    def __post_init__(self) -> None:
        """Random weights, by torch's seed."""
        self.network = whisper.build(self.tokens.count)
        self.frames = nn.Linear(whisper.WIDTH, WORDS + QUARTERS)

    def parameters(self) -> list[nn.Parameter]:
        """All of them."""
        return [*self.network.parameters(), *self.frames.parameters()]

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        part = path.with_suffix(".part")
        torch.save({"m": self.network.state_dict(), "hw": self.frames.state_dict()}, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        saved = torch.load(path, weights_only=True)
        self.network.load_state_dict(saved["m"])
        self.frames.load_state_dict(saved["hw"])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """What is wrong with it: text, frames, where the decoder looks; and two accuracies."""
        encoded = whisper.encode(self.network, batch.mel)
        logits, attentions = whisper.decode(self.network, encoded, batch.tokens)
        frames = self.frames(encoded)
        words, quarters = frames[..., :WORDS], frames[..., WORDS:]
        before, known = _later(batch.looks), _later(batch.looking)
        return {
            "text": _entropy(logits, batch.targets),
            "frame": _entropy(words, batch.words),
            "quarter": _entropy(quarters, batch.quarters),
            "next": _astray(attentions[-1], batch.looks, batch.looking),
            "read": _astray(attentions[0], before, known),
            "right": _right(logits, batch.targets, 0),
            "frames right": _right(words, batch.words, 1),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Synthesize what is missing, train, convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--share", type=float, default=1.0, help="of the corpus, where it is made anew")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="the highest learning rate")
    parser.add_argument("--start", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--at", type=float, default=0.0, help="where in the schedule of lengths to begin, 0 to 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    said = heard(corpus.kept_in(options.work, share=options.share, seed=options.seed))
    student = train(
        said,
        steps=options.steps,
        rate=options.rate,
        start=options.start,
        at=options.at,
        seed=options.seed,
        checkpoint=options.work / CHECKPOINT,
    )
    convert(student.network, build_tokenizer(), options.out)


def train(
    said: Sequence[Heard], *, steps: int, rate: float, start: Path | None, at: float, seed: int, checkpoint: Path
) -> Student:
    """The student after `steps`; the checkpoint is written on the way, too."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    student = Student(TrainedTokens(build_tokenizer()))
    if start is not None:
        student.load(start)
    windows = WindowMaker(said, student.tokens, seed)
    optimizer = _optimizer(student.parameters(), rate)
    smooth: dict[str, float] = {}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * _rate_share(step, steps)
        losses = student.losses(windows.batch(*_form(draw, at + (1 - at) * step / steps)))
        optimizer.zero_grad()
        _whole(losses).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        for name, value in losses.items():
            smooth[name] = SMOOTHING * smooth.get(name, value.item()) + (1 - SMOOTHING) * value.item()
        if step % REPORT == REPORT - 1:
            print(f"step {step + 1}: " + ", ".join(f"{name} {value:.3f}" for name, value in smooth.items()), flush=True)
        if step % SAVE == SAVE - 1:
            student.save(checkpoint)
    student.save(checkpoint)
    return student


def _optimizer(parameters: Sequence[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def _rate_share(step: int, steps: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / WARM_UP) * (LEAST_RATE + (1 - LEAST_RATE) * cosine)


def _form(draw: np.random.Generator, done: float) -> tuple[int, int]:
    """How many windows, of how many frames, at this share of the training."""
    forms = next(forms for until, forms in LENGTHS if done < until or until == 1)
    _, frames, count = forms[draw.choice(len(forms), p=[share for share, _, _ in forms])]
    return count, frames


def _whole(losses: dict[str, Tensor]) -> Tensor:
    return (
        losses["text"]
        + FRAME_WEIGHT * losses["frame"]
        + QUARTER_WEIGHT * losses["quarter"]
        + NEXT_WEIGHT * losses["next"]
        + READ_WEIGHT * losses["read"]
    )


def _entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED)


def _astray(attention: Tensor, looks: Tensor, looking: Tensor) -> Tensor:
    """How little of head 0's attention lies where the word is said: a negative log, over tokens where it is known."""
    inside = ((attention[:, 0] * looks).sum(-1) + 1e-4).log()
    return -(inside * looking).sum() / looking.sum().clamp(min=1)


def _later(looks: Tensor) -> Tensor:
    """One token later: where the word is said that was just read."""
    return torch.cat([torch.zeros_like(looks[:, :1]), looks[:, :-1]], dim=1)


def _right(logits: Tensor, targets: Tensor, least: int) -> Tensor:
    asked = targets >= least
    return ((logits.argmax(-1) == targets) & asked).sum() / asked.sum().clamp(min=1)


if __name__ == "__main__":
    main()
