"""What the encoder made of chunks whose language was detected, kept until they are transcribed.

The encoder computes 30 s at once, and the chunks that vote on a video's language are transcribed afterwards. Only on
CPUs, where that is a third of a short job's transcription: a GPU encodes a chunk in a few milliseconds.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Features = NDArray[np.float32]

MOST_KEPT: Final = 32
"""Of Whisper base 3 MB each, of large-v3 7.7 MB: the oldest ones go, and are computed again."""


class Encodings:
    """Encodes spectra of chunks, those that are kept only once. Safe to call from several threads."""

    def __init__(self, encode: Callable[[Sequence[Features]], Any], *, keeps: bool) -> None:
        self._encode = encode
        self._keeps = keeps
        self._kept: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, features: Sequence[Features]) -> Any:
        """Return the encoder's output, shape (items, steps, width), and keep it for `take`."""
        encoded = self._encode(features)
        if self._keeps:
            each = np.asarray(encoded)
            with self._lock:
                self._kept |= {_digest(spectrum): item.copy() for spectrum, item in zip(features, each, strict=True)}
                while len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
        return encoded

    def take(self, features: Sequence[Features]) -> Any:
        """Return the encoder's output; what is kept is not computed again, nor kept any longer."""
        with self._lock:
            kept = [self._kept.pop(_digest(spectrum), None) for spectrum in features] if self._kept else []
        if not any(item is not None for item in kept):
            return self._encode(features)
        import ctranslate2

        missing = [spectrum for spectrum, item in zip(features, kept, strict=True) if item is None]
        computed = iter(np.asarray(self._encode(missing))) if missing else iter(())
        items = [next(computed) if item is None else item for item in kept]
        return ctranslate2.StorageView.from_array(np.stack(items))


def _digest(spectrum: Features) -> bytes:
    return hashlib.blake2b(spectrum.tobytes(), digest_size=16).digest()
