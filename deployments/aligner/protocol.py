"""What every aligner looks like, and the one place that names them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deployments.aligner.config import AlignerConfig
    from deployments.types import Audio, Transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignItem:
    """One item of a batch: a chunk's transcript, and what it was heard in."""

    audio: Audio
    """The whole video's, read-only: the utterances' own times say where they lie."""
    transcript: Transcript


class WordAligner(Protocol):
    """Gives times to the words of transcripts, which may belong to different jobs and be of different languages."""

    def align(self, items: Sequence[AlignItem]) -> list[Transcript | Exception]:
        """Each item's transcript with every utterance's words timed: inside it, in order, without overlap.

        One answer per item, in order; an item that fails fails alone, as an exception in its place. Utterances that
        have words already stay as they are. Safe to call from several threads. Raises what hits the whole batch: a lack
        of memory, a dead device.
        """
        ...

    def check(self) -> None:
        """Raise where the engine cannot work any more."""
        ...


def create(config: AlignerConfig, locate: Callable[[str], str] = str) -> WordAligner:
    """Load the engine that `config` names. `locate` gives the folder of a model's name, or raises why there is none.

    Raises:
        ModelLoadError: Its device is not there.
    """
    from deployments.aligner.ctc import CtcAligner

    return CtcAligner(config, locate)
