"""Settings of the emotion stage, and what is known of an engine without loading it."""

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
"""Languages for which `prosodic-lexical` has a word list; in others it uses the voice only (docs/decisions.md)."""


class EmotionConfig(BaseModel):
    """Settings of the emotion stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["prosodic-lexical", "wav2vec2"] = "prosodic-lexical"
    """`prosodic-lexical`: arousal from the voice against the speaker's own norm, valence from English words.
    `wav2vec2`: a trained classifier of the voice; any audio classifier of transformers."""
    longest_call_s: float = Field(default=LONGEST_S, gt=0)
    """One call of the engine that takes longer is stuck: the replica's process ends, and Serve starts another."""

    # For `wav2vec2` only.
    model: str = "superb/wav2vec2-base-superb-er"
    """A folder with the model, or its name on the Hugging Face hub. The default knows four emotions, in English."""
    device: str = "cpu"
    """A torch device."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch. More than one is slower on a busy machine: OpenMP's threads spin while they wait."""
    batch_size: int = Field(default=8, ge=1)
    """Windows of the same length, up to 15 s, per pass of the network."""
    batch_s: float = Field(default=60.0, gt=0)
    """Seconds of audio, of all jobs, in one call: a few seconds of work on a CPU, then others have their turn. A GPU
    does ten minutes in that time, and finds more windows of the same length among them."""


def model_version(config: EmotionConfig) -> str:
    """Return what classified, such as `prosodic-lexical-1+vader-3.3.2` or `wav2vec2-base-superb-er`."""
    if config.engine == "wav2vec2":
        return PurePath(config.model).name
    return f"{config.engine}-1+vader-{version('vaderSentiment')}"


def needs_tracks(config: EmotionConfig) -> bool:
    """Return whether the engine needs the prosody tracks; if not, it runs beside the prosody stage."""
    return config.engine == "prosodic-lexical"


def parts(config: EmotionConfig, segments: Sequence[Segment]) -> list[Sequence[Segment]]:
    """Divide a video's `segments` into the parts of separate calls, of about `batch_s` of speech each.

    An engine that needs all segments for a speaker's norm has one part.
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
    """Return the warnings about this engine and about its answers for a video's `segments`."""
    if config.engine == "wav2vec2":
        return ()
    by_voice = (
        ResultWarning(code=WarningCode.EMOTION_BY_VOICE, language=segment.language, seconds=segment.duration_s)
        for segment in segments
        if segment.language not in WORDS_IN
    )
    return (ResultWarning(code=WarningCode.EMOTION_BY_RULES), *by_voice)
