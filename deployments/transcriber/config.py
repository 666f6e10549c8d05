"""The recogniser's settings, and what is known of it without loading it.

Imported by the HTTP edge for every request: light, and it must stay so.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_LANGUAGES = {"pocketsphinx": frozenset({"en"})}


class TranscriberConfig(BaseModel):
    """Which recogniser runs, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    engine: Literal["pocketsphinx"] = "pocketsphinx"
    """`pocketsphinx`: CMU's small recogniser with the English model in its wheel; no download, CPU only."""
    max_chunk_s: float = Field(default=8.0, gt=0, le=30)
    """The caller cuts speech at pauses into chunks no longer than this. Longer ones win no words, only longer calls."""
    threads: int | None = Field(default=None, ge=1)
    """Bound of torch's thread pool; None for engines without torch (pocketsphinx decodes on one core)."""


def languages(config: TranscriberConfig) -> frozenset[str]:
    """ISO 639-1 codes of the languages that the engine knows."""
    return _LANGUAGES[config.engine]


def model_version(config: TranscriberConfig) -> str:
    """The result's `model_version`: engine, its release and its model, such as `pocketsphinx-5.1.1-en-us`."""
    return f"{config.engine}-{version(config.engine)}-en-us"


def has_word_times(config: TranscriberConfig) -> bool:
    """Whether the engine times its own words; where not, the graph needs the Aligner."""
    return config.engine == "pocketsphinx"


def device(config: TranscriberConfig) -> str:
    """Where the engine computes: the result's `device`."""
    return {"pocketsphinx": "cpu"}[config.engine]
