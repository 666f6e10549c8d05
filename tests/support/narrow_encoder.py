"""The voice encoder of small_diarizer.py without the channels that its written weights leave at zero."""

from __future__ import annotations

from typing import Any

from pyannote.audio.models.embedding.xvector import XVectorMFCC
from torch import nn


class NarrowXVector(XVectorMFCC):
    """An `XVectorMFCC` that is as wide everywhere as its features are."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        width = self.hparams.mfcc["n_mfcc"]
        for layer in range(0, len(self.tdnns), 3):
            wide = self.tdnns[layer]
            self.tdnns[layer] = nn.Conv1d(width, width, wide.kernel_size, dilation=wide.dilation)
            self.tdnns[layer + 2] = nn.BatchNorm1d(width)
        self.embedding = nn.Linear(2 * width, self.hparams.dimension)
