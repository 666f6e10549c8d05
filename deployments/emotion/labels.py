"""Maps the labels of trained models to ours. Plain functions; knows nothing of models.

Data sets name moods differently: IEMOCAP `neu hap exc ang sad`, RAVDESS `calm fearful disgust`, CREMA-D `NEU FEA DIS`,
TESS `ps` (pleasant surprise). Unknown labels stay, in lower case.
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
    """Return the one of `LABELS` that `label` means, else `label` in lower case."""
    plain = label.strip().lower()
    return KNOWN.get(plain.replace(" ", "_"), plain)


def merged(labels: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Return the distinct names of `labels`, and the matrix that sums their shares: (labels, names), 0 or 1."""
    renamed_labels = [renamed(label) for label in labels]
    names = tuple(dict.fromkeys(renamed_labels))
    sums = np.array([[label == name for name in names] for label in renamed_labels], np.float32)
    return names, sums
