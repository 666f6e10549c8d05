"""The aligner's settings. Importing this loads no model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class AlignerConfig(BaseModel):
    """Which aligner runs, where the recogniser has no word times of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    engine: Literal["proportional"] = "proportional"
    """`proportional`: each word gets a share of its utterance by its length in letters; listens to nothing."""
