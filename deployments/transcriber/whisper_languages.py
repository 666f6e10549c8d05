"""What Whisper speaks: the codes of its language tokens. A constant, so that the HTTP edge need not load the model.

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
"""Only the models of the third generation have it."""
EVERY_MODELS: Final = MULTILINGUAL | {CANTONESE}
"""What at least one model speaks."""
THIRD_GENERATION: Final = ("large-v3", "turbo")
"""Parts of the names of those models; `large` alone means one of them, too."""
ENGLISH_ONLY: Final = ".en"
"""How the names of the English models end."""


def known_to(model: str) -> frozenset[str]:
    """The languages of the model with this name (of its folder, where it is a path)."""
    if model.endswith(ENGLISH_ONLY):
        return frozenset({"en"})
    if model == "large" or any(part in model for part in THIRD_GENERATION):
        return EVERY_MODELS
    return MULTILINGUAL
