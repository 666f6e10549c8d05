"""From which values on the recogniser's text is doubted. Imported for every HTTP request: it must stay light."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class HallucinationThresholds(BaseModel):
    """Limits beyond which the decoder's text is doubted. The first three are Whisper's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    compression_ratio: float = Field(default=2.4, gt=1)
    """A text with a higher ratio (UTF-8 size over compressed size) repeats itself."""
    average_logprob: float = Field(default=-1.0, lt=0)
    """A text with a lower mean log-probability per token is a guess."""
    no_speech: float = Field(default=0.6, gt=0, le=1)
    """A chunk with a higher probability of holding no speech may be silent."""
    little_speech: float = Field(default=0.3, ge=0, le=1)
    """A chunk of which the speech detector finds a smaller share to be speech may be silent."""
    temperatures: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    """Temperatures at which a doubtful chunk is decoded again, in this order."""
