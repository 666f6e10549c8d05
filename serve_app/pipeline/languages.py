"""Decides which parts of a video are transcribed in which language, where the request leaves that to the server.

A quick look at all speech in short windows gives passages of one language each. Then a few chunks of the main language
vote, and each passage in another language is checked once more as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from deployments.transcriber.passages import (
    CONFIRMED,
    Passage,
    chunks_of,
    joined,
    likeliest,
    passages,
    speech_s,
    vote,
    voters,
    windows,
)
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Span

Probabilities: TypeAlias = dict[str, float]
"""Of each language, 0-1."""


class DetectLanguages(Protocol):
    """Detects the language of spans."""

    async def __call__(self, spans: Sequence[Span], *, brief: bool) -> list[Probabilities]:
        """Return the probabilities for each span. `brief` is the quick way, for spans of at most `BRIEF_S`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagePlan:
    """What to transcribe in which language: `passages` in order. `language` is that of most speech."""

    language: str
    probability: float
    """Of `language`, 0-1."""
    passages: list[Passage]


async def plan_languages(speech: Sequence[Span], max_chunk_s: float, detect: DetectLanguages) -> LanguagePlan | None:
    """Return the plan for the detected `speech`; None where no language is detected."""
    looked_at = windows(speech)
    found = passages(looked_at, await detect(looked_at, brief=True))
    if not found:
        return None
    main = likeliest(_spoken_s(found, speech))
    chunks = voters([chunk for chunk in chunks_of(found, speech, max_chunk_s) if chunk.language == main])
    voted = vote(await detect(chunks, brief=False), [chunk.duration_s for chunk in chunks])
    if voted is None:
        return None
    language, probability = voted
    confirmed = await _confirmed([each for each in found if each.language != main], speech, max_chunk_s, detect)
    settled = [each if each in confirmed else replace(each, language=language) for each in found]
    return LanguagePlan(language=language, probability=probability, passages=joined(settled))


def language_warnings(plan: LanguagePlan, speech: Sequence[Span]) -> list[ResultWarning]:
    """Return warnings that the language is in doubt, and of the seconds that are in other languages."""
    found = []
    if plan.probability < CONFIRMED:
        found.append(ResultWarning(code=WarningCode.LANGUAGE_UNCERTAIN, language=plan.language, share=plan.probability))
    total_s = speech_s(plan.passages, speech)
    for language, seconds in _spoken_s(plan.passages, speech).items():
        if language != plan.language:
            share = seconds / total_s
            found.append(
                ResultWarning(code=WarningCode.OTHER_LANGUAGE, language=language, seconds=seconds, share=share)
            )
    return found


def _spoken_s(found: Sequence[Passage], speech: Sequence[Span]) -> dict[str, float]:
    """Return the seconds of speech in each language, in the order of their first passages."""
    languages = dict.fromkeys(each.language for each in found)
    return {language: speech_s([each for each in found if each.language == language], speech) for language in languages}


async def _confirmed(
    found: Sequence[Passage], speech: Sequence[Span], max_chunk_s: float, detect: DetectLanguages
) -> list[Passage]:
    """Return the passages whose longest chunk is in the passage's language by the thorough way, too."""
    longest = [chunk for each in found for chunk in voters(chunks_of([each], speech, max_chunk_s), 1)]
    detected = await detect(longest, brief=False) if longest else []
    pairs = zip(found, detected, strict=True)
    return [each for each, probabilities in pairs if probabilities.get(each.language, 0.0) >= CONFIRMED]
