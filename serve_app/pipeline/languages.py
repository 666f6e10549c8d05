"""Which parts of a video are to be heard in which language, where the request leaves that to the server.

First a quick look at all speech in short windows; then a vote for the language of most of it, and a second hearing of
each passage in another one. Knows nothing of stages: who calls gives a function that hears.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from deployments.transcriber.language import vote, voters
from deployments.transcriber.passages import (
    CONFIRMED,
    Passage,
    chunks_of,
    joined,
    likeliest,
    passages,
    speech_s,
    windows,
)
from deployments.types import Span
from deployments.warnings import ResultWarning, WarningCode

Probabilities: TypeAlias = dict[str, float]
"""How likely each language is."""
Hear: TypeAlias = Callable[[Sequence[Span], bool], Awaitable[list[Probabilities]]]
"""Which languages spans sound like; True for the quick way, which takes no more than `BRIEF_S` at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to hear: `passages` in order, the language of most of them, and how sure that one is, 0-1."""

    language: str
    probability: float
    passages: list[Passage]


async def planned(speech: Sequence[Span], max_chunk_s: float, hear: Hear) -> Plan | None:
    """In which languages to hear the detected `speech`; None where no language can be told."""
    looked_at = windows(speech)
    found = passages(looked_at, await hear(looked_at, True))
    if not found:
        return None
    main = _most_spoken(found, speech)
    chunks = voters([chunk for chunk in chunks_of(found, speech, max_chunk_s) if chunk.language == main])
    voted = vote(await hear(chunks, False), [chunk.duration_s for chunk in chunks])
    if voted is None:
        return None
    confirmed = await _confirmed([each for each in found if each.language != main], speech, max_chunk_s, hear)
    settled = [each if each in confirmed else replace(each, language=voted[0]) for each in found]
    return Plan(language=voted[0], probability=voted[1], passages=joined(settled))


def warnings(plan: Plan, speech: Sequence[Span]) -> list[ResultWarning]:
    """That the language is in doubt, and which others are spoken how long."""
    told = []
    if plan.probability < CONFIRMED:
        told.append(ResultWarning(code=WarningCode.LANGUAGE_UNCERTAIN, language=plan.language, share=plan.probability))
    total_s = speech_s(plan.passages, speech)
    for language in dict.fromkeys(each.language for each in plan.passages):
        seconds = speech_s([each for each in plan.passages if each.language == language], speech)
        if language != plan.language:
            share = seconds / total_s
            told.append(ResultWarning(code=WarningCode.OTHER_LANGUAGE, language=language, seconds=seconds, share=share))
    return told


def _most_spoken(found: Sequence[Passage], speech: Sequence[Span]) -> str:
    """Of equals the first in the alphabet."""
    return likeliest(
        {
            language: speech_s([each for each in found if each.language == language], speech)
            for language in {each.language for each in found}
        }
    )


async def _confirmed(found: Sequence[Passage], speech: Sequence[Span], max_chunk_s: float, hear: Hear) -> list[Passage]:
    """Those passages whose longest chunk, heard with care, is in the passage's language, too."""
    longest = [chunk for each in found for chunk in voters(chunks_of([each], speech, max_chunk_s), 1)]
    heard = await hear(longest, False) if longest else []
    pairs = zip(found, heard, strict=True)
    return [each for each, probabilities in pairs if probabilities.get(each.language, 0.0) >= CONFIRMED]
