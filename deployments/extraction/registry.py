"""The decoders by the name that the config gives."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from deployments.extraction import media_decoder

if TYPE_CHECKING:
    from deployments.extraction.config import ExtractorConfig
    from deployments.extraction.protocol import Decoder


def create(config: ExtractorConfig) -> Decoder:
    """Return the decoder that `config` names, with its limits."""
    return partial(media_decoder.extract, limits=config.media)
