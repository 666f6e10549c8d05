"""Settings of the prosody stage. Importing this loads no signal processing."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.watchdog import LONGEST_S


class ProsodyConfig(BaseModel):
    """Settings of the prosody stage. It runs on one thread."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["librosa"] = "librosa"
    """`librosa`: level and autocorrelation by librosa, pitch path after Boersma (1993), SwiftF0 as second opinion."""
    longest_call_s: float = Field(default=LONGEST_S, gt=0)
    """One call of the engine that takes longer is stuck: the replica's process ends, and Serve starts another."""
    f0_min_hz: float = Field(default=60.0, ge=40.0, le=200.0)
    """Lowest pitch. The analysis window is three periods of it: a higher value is faster, and finer in time."""
    f0_max_hz: float = Field(default=1000.0, ge=300.0, le=1600.0)
    """Highest pitch."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.f0_max_hz < 2 * self.f0_min_hz:
            raise ValueError("f0_max_hz must be at least an octave above f0_min_hz")
        return self
