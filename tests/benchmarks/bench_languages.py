"""How often a job that names its languages writes each stretch of speech in its own, with Whisper base.

    python -m tests.benchmarks languages

Prints markdown. Real Korean (one reader) and real English (nine speakers) in turn, all at one level: whole sentences,
or as much of each as the row says, with pauses between them. `right` is the share of the words' time that is written in
the language that is spoken there; `translated` are words of the other script, of at least three letters or two
syllables. Needs what ML_SERVER_REAL_MODELS names.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from deployments.types import SAMPLE_RATE_HZ  # noqa: E402
from tests.benchmarks.report import row, say  # noqa: E402
from tests.support import real_models, sounds  # noqa: E402
from tests.support.real_graph import RealGraph  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deployments.types import Audio, Span
    from tests.support.real_graph import Analysis

NAMED: Final = ("en", "ko")
CASES: Final = ((None, 1.0), (None, 0.4), (4.0, 0.4), (2.0, 0.4), (2.0, 0.15))
"""So much of each sentence, in seconds (None: all of it, 2-11 s), and the pause before each."""
FOREIGN: Final = {"en": "[가-힣]{2,}", "ko": "[A-Za-z]{3,}"}
LEVEL: Final = 3000
HEAD: Final = ("each", "pause, s", "languages", "right", "translated")


def main() -> None:
    folder = real_models.part("whisper-base")
    if folder is None:
        say(real_models.MISSING)
        return
    warnings.simplefilter("ignore")
    ears = RealGraph(folder)
    say(row(*HEAD))
    say(row(*["---"] * len(HEAD)))
    for cells in measured(ears):
        say(row(*cells))


def measured(ears: RealGraph) -> Iterator[list[object]]:
    """A row per case and way to ask; then one language alone."""
    english, korean = (
        [real_models.sound(path) for path in sorted((real_models.part(name) or Path()).glob("*.wav"))]
        for name in ("voices", "korean")
    )
    pairs = list(zip(english, korean * 3, strict=True))
    for length_s, pause_s in CASES:
        cut = [_part(each, length_s) for pair in pairs for each in pair]
        audio, spans = sounds.in_turn(cut, pause_s)
        for name, asked in (("auto", {}), ("en, ko", {"languages": NAMED})):
            told = _told(ears.hear(audio, **asked), spans[1::2])
            yield ["whole" if length_s is None else f"{length_s:g} s", pause_s, name, *told]
    for name, alone in (("English alone", english), ("Korean alone", korean)):
        audio, spans = sounds.in_turn(alone, 0.4)
        yield [name, 0.4, "en, ko", *_told(ears.hear(audio, languages=NAMED), spans if alone is korean else [])]


def _part(audio: Audio, length_s: float | None) -> Audio:
    """The beginning of a sentence, without the silence before it, at one level."""
    loud = np.flatnonzero(np.abs(audio) > np.abs(audio).max() / 10)
    kept = audio[max(0, loud[0] - SAMPLE_RATE_HZ // 20) : loud[-1] + SAMPLE_RATE_HZ // 10].astype(float)
    kept = kept if length_s is None else kept[: round(length_s * SAMPLE_RATE_HZ)]
    return sounds.as_int16(kept * LEVEL / np.sqrt(np.mean(kept**2)))


def _told(heard: Analysis, korean: Sequence[Span]) -> list[object]:
    spoken = {True: 0.0, False: 0.0}
    translated = 0
    for segment in heard.segments:
        language = segment.language or heard.language
        for word in segment.words:
            in_korean = any(word.overlap_s(span) > word.duration_s / 2 for span in korean)
            spoken[in_korean == (language == "ko")] += word.duration_s
            translated += len(re.findall(FOREIGN["ko" if in_korean else "en"], word.text))
    return [f"{spoken[True] / sum(spoken.values()):.2f}", translated]


if __name__ == "__main__":
    main()
