"""The languages that Whisper knows. Constants, so that the HTTP edge need not load the model.

The codes are Whisper's own: ISO 639-1, with `haw`, `jw` (Javanese) and `yue`, which that standard writes otherwise.
"""

from __future__ import annotations

from typing import Final

_CODES: Final = """
    af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id is
    it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl
    sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh
"""
MULTILINGUAL: Final = frozenset(_CODES.split())
"""The 99 languages of every multilingual model."""
CANTONESE: Final = "yue"
"""Only models of the third generation know it."""
EVERY_MODELS: Final = MULTILINGUAL | {CANTONESE}
"""The languages of at least one model."""
THIRD_GENERATION: Final = ("large-v3", "turbo")
"""Parts of the names of the models of the third generation; the name `large` means one of them, too."""
ENGLISH_ONLY: Final = ".en"
"""Suffix of the names of English-only models."""


def known_to(model: str) -> frozenset[str]:
    """Return the languages of the model with this name."""
    if model.endswith(ENGLISH_ONLY):
        return frozenset({"en"})
    if model == "large" or any(part in model for part in THIRD_GENERATION):
        return EVERY_MODELS
    return MULTILINGUAL
