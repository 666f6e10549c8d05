"""The emotion stage's settings, and what is known of it without loading it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.warnings import ResultWarning, WarningCode
from deployments.watchdog import LONGEST_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Segment


WORDS_IN = frozenset({"en"})
"""Languages of whose words `prosodic-lexical` has a list; of others it judges the voice alone (docs/decisions.md)."""


class EmotionConfig(BaseModel):
    """Which analyser judges moods."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["prosodic-lexical", "wav2vec2"] = "prosodic-lexical"
    """`prosodic-lexical`: arousal from the voice against the speaker's own norm, valence from English words.
    `wav2vec2`: a trained classifier, which hears the voice alone; any audio classifier of transformers."""
    longest_call_s: float = Field(default=LONGEST_S, gt=0)
    """One call of the engine that takes longer is stuck: the replica's process ends, and Serve starts another."""

    # For `wav2vec2` only.
    model: str = "superb/wav2vec2-base-superb-er"
    """A directory with the model, or its name on the Hugging Face hub. The default tells four moods, in English."""
    device: str = "cpu"
    """A torch device."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch. More than one is a loss on a busy machine: OpenMP's threads spin while they wait."""
    batch_size: int = Field(default=8, ge=1)
    """Windows, of up to 15 s each and of the same length, that the network hears at once."""
    batch_s: float = Field(default=60.0, gt=0)
    """Seconds of sound, of all jobs, that are judged in one call: a few seconds of work on a CPU, after which others
    have their turn. A GPU does ten minutes in that time, and finds more windows of the same length among them."""


def model_version(config: EmotionConfig) -> str:
    """What judged, such as `prosodic-lexical-1+vader-3.3.2` or `wav2vec2-base-superb-er`."""
    if config.engine == "wav2vec2":
        return PurePath(config.model).name
    return f"{config.engine}-1+vader-{version('vaderSentiment')}"


def needs_tracks(config: EmotionConfig) -> bool:
    """Whether the engine judges by the prosody's tracks; else it is asked without them, and beside the prosody."""
    return config.engine == "prosodic-lexical"


def parts(config: EmotionConfig, segments: Sequence[Segment]) -> list[Sequence[Segment]]:
    """A video's `segments` in the parts that calls may judge apart from each other, of about `batch_s` of speech.

    An engine that knows a speaker's norm only from all segments has one part.
    """
    if needs_tracks(config):
        return [segments]
    cuts, speech_s = [0], 0.0
    for at, segment in enumerate(segments):
        if speech_s and speech_s + segment.duration_s > config.batch_s:
            cuts.append(at)
            speech_s = 0.0
        speech_s += segment.duration_s
    return [segments[first:end] for first, end in zip(cuts, [*cuts[1:], len(segments)], strict=True)]


def warnings(config: EmotionConfig, segments: Sequence[Segment]) -> tuple[ResultWarning, ...]:
    """What a reader of the result has to know of this engine, and of what it made of a video's `segments`."""
    if config.engine == "wav2vec2":
        return ()
    by_voice = (
        ResultWarning(code=WarningCode.EMOTION_BY_VOICE, language=segment.language, seconds=segment.duration_s)
        for segment in segments
        if segment.language not in WORDS_IN
    )
    return (ResultWarning(code=WarningCode.EMOTION_BY_RULES), *by_voice)
