"""What a model's labels are called here. Plain functions; knows nothing of models.

Data sets name moods differently: IEMOCAP `neu hap exc ang sad`, RAVDESS `calm fearful disgust`, CREMA-D `NEU FEA DIS`,
TESS `ps` (pleasant surprise). What is not known passes through in lower case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deployments.emotion.protocol import LABELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_OTHER_NAMES = {
    "neutral": "neu calm",
    "happy": "hap happiness joy joyful exc excited",
    "sad": "sadness",
    "angry": "ang anger",
    "fearful": "fear fea",
    "disgusted": "disgust dis",
    "surprised": "surprise sur ps pleasant_surprise",
}
_NAME_OF = {other: name for name, others in _OTHER_NAMES.items() for other in others.split()}
KNOWN = {name: name for name in LABELS} | _NAME_OF


def renamed(label: str) -> str:
    """One of `LABELS` where `label` means it, else `label` in lower case."""
    plain = label.strip().lower()
    return KNOWN.get(plain.replace(" ", "_"), plain)


def merged(labels: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """The names that `labels` come to, and what adds up a model's shares to theirs: shape (labels, names), 0 or 1."""
    renamed_labels = [renamed(label) for label in labels]
    names = tuple(dict.fromkeys(renamed_labels))
    sums = np.array([[label == name for name in names] for label in renamed_labels], np.float32)
    return names, sums
