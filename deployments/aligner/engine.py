"""What every aligner looks like, and the one place that names them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from deployments.aligner.config import AlignerConfig
    from deployments.types import Audio, Transcript


class WordAligner(Protocol):
    """Gives times to the words of a transcript."""

    def align(self, audio: Audio, transcript: Transcript) -> Transcript:
        """The same transcript with every utterance's words timed: inside it, in order, without overlap.

        `audio` is the whole video's. Utterances that have words already stay as they are.
        """
        ...


def create(config: AlignerConfig) -> WordAligner:
    """Load the engine that `config` names."""
    from deployments.aligner.proportional import ProportionalAligner

    engines = {"proportional": ProportionalAligner}
    return engines[config.engine]()
