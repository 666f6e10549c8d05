"""What the encoder made of chunks whose language was detected, kept until they are transcribed.

The encoder computes a whole window, and the chunks that vote on a video's language are transcribed afterwards. Only on
CPUs, where that is a quarter of a short job's transcription: a GPU encodes a chunk in a few milliseconds. Where another
replica transcribes a chunk, or too many others came between, it is encoded again.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Features = NDArray[np.float32]
    """A log-mel spectrum, shape (mels, frames)."""

MOST_KEPT: Final = 48
"""Nearly what ten jobs have at once; of Whisper base at most 3 MB each, of large-v3 7.7."""
LONGEST_KEPT_S: Final = 600.0
"""What nobody has asked for until then, because its job ended or another replica has it, goes with the next job."""


class Encodings:
    """Encodes spectra of chunks, those that are kept only once. Safe to call from several threads."""

    def __init__(self, encode: Callable[[Sequence[Features]], Any], *, keeps: bool) -> None:
        self._encode = encode
        self._keeps = keeps
        self._kept: OrderedDict[bytes, tuple[float, NDArray[np.float32]]] = OrderedDict()
        """When it was kept, and the encoder's output, shape (steps, width); the oldest first."""
        self._lock = threading.Lock()

    def keep(self, features: Sequence[Features]) -> Any:
        """Return the encoder's output, shape (items, steps, width), and keep it for `take`."""
        encoded = self._encode(features)
        if self._keeps:
            with self._lock:
                for spectrum, item in zip(features, np.asarray(encoded), strict=True):
                    self._kept[digest := _digest(spectrum)] = time.monotonic(), item.copy()
                    self._kept.move_to_end(digest)
                self._forget()
        return encoded

    def take(self, features: Sequence[Features]) -> Any:
        """Return the encoder's output; what is kept is not computed again, nor kept any longer."""
        with self._lock:
            self._forget()
            kept = [self._kept.pop(_digest(spectrum), None) for spectrum in features] if self._kept else []
        if not any(kept):
            return self._encode(features)
        import ctranslate2

        missing = [spectrum for spectrum, item in zip(features, kept, strict=True) if item is None]
        computed = iter(np.asarray(self._encode(missing))) if missing else iter(())
        items = [next(computed) if item is None else item[1] for item in kept]
        return ctranslate2.StorageView.from_array(np.stack(items))

    def _forget(self) -> None:
        """Drop what is too old or too much."""
        oldest_at = time.monotonic() - LONGEST_KEPT_S
        while self._kept and (len(self._kept) > MOST_KEPT or next(iter(self._kept.values()))[0] < oldest_at):
            self._kept.popitem(last=False)


def _digest(spectrum: Features) -> bytes:
    return hashlib.blake2b(spectrum.tobytes(), digest_size=16).digest()
