"""Decides which parts of a video are transcribed in which language, where the request leaves that to the server.

A quick look at all speech in short windows gives passages of one language each. Then a few chunks of the main language
vote, and each passage in another language is checked once more as a whole. Where the job names the languages, only
these are looked for, and less caution is needed to tell them apart.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from deployments.transcriber.passages import (
    AMONG_ALL,
    AMONG_NAMED,
    Passage,
    among,
    chunks_of,
    joined,
    likeliest,
    parts_of_mixed,
    passages,
    planned_chunks,
    speech_s,
    vote,
    voters,
    windows,
)
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deployments.types import Span, Transcript, Utterance

Probabilities: TypeAlias = dict[str, float]
"""Of each language, 0-1."""
LEAST_VOTES = 0.5
"""Of all languages; with less, the job has probably not named the language that is spoken."""


class DetectLanguages(Protocol):
    """Detects the language of spans."""

    async def __call__(self, spans: Sequence[Span], *, brief: bool) -> list[Probabilities]:
        """Return the probabilities for each span. `brief` is the quick way, for spans of at most `BRIEF_S`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagePlan:
    """What to transcribe in which language: `passages` in order. `language` is that of most speech."""

    language: str
    probability: float
    """Of `language`, 0-1; among the languages that the job names, if it names any."""
    passages: list[Passage]
    votes: float = 1.0
    """Of `language` among all languages, 0-1, where the job names some."""
    named: bool = False
    """Whether it does."""


def main_language(transcripts: Sequence[Transcript], seconds_of: Callable[[Utterance], float]) -> str | None:
    """Return the language with most of what `seconds_of` counts of the utterances; None where nobody spoke."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for transcript in transcripts:
        for utterance in transcript.utterances:
            seconds[transcript.language] += seconds_of(utterance)
    return max(seconds, key=seconds.__getitem__) if seconds else None


async def plan_languages(
    speech: Sequence[Span], max_chunk_s: float, detect: DetectLanguages, named: Sequence[str] = ()
) -> LanguagePlan | None:
    """Return the plan for the detected `speech`; None where no language is detected.

    `named`: the only languages that are looked for; all, if empty.
    """
    caution = AMONG_NAMED if named else AMONG_ALL
    looked_at = windows(speech, caution)
    glanced = _among(await detect(looked_at, brief=True), named)
    if named:
        looked_at, glanced = await _divided(looked_at, glanced, detect, named)
    found = passages(looked_at, glanced, caution)
    if not found:
        return None
    main = likeliest(_spoken_s(found, speech))
    planned = planned_chunks(found, speech, max_chunk_s)
    chunks = voters([chunk for chunk in planned if chunk.language == main])
    heard = await detect([planned[chunk] for chunk in chunks], brief=False)  # as transcribed: they are encoded once
    durations_s = [chunk.duration_s for chunk in chunks]
    voted = vote(_among(heard, named), durations_s)
    if voted is None:
        return None
    language, probability = voted
    others = [each for each in found if each.language != main]
    longest = [planned[chunk] for each in others for chunk in voters(chunks_of([each], speech, max_chunk_s), 1)]
    detected = _among(await detect(longest, brief=False) if longest else [], named)
    confirmed = [a for a, b in zip(others, detected, strict=True) if b.get(a.language, 0.0) >= caution.confirmed]
    settled = [each if each in confirmed else replace(each, language=language) for each in found]
    plan = LanguagePlan(language=language, probability=probability, passages=joined(settled))
    return replace(plan, named=True, votes=_votes(language, heard, durations_s)) if named else plan


def language_warnings(plan: LanguagePlan, speech: Sequence[Span]) -> list[ResultWarning]:
    """Return warnings that the language is in doubt, and of seconds in languages that the job does not name."""
    found = []
    if plan.probability < AMONG_ALL.confirmed or plan.votes < LEAST_VOTES:
        share = min(plan.probability, plan.votes)
        found.append(ResultWarning(code=WarningCode.LANGUAGE_UNCERTAIN, language=plan.language, share=share))
    if plan.named:  # another language is no surprise, and each segment tells its own
        return found
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


async def _divided(
    looked_at: Sequence[Span], glanced: Sequence[Probabilities], detect: DetectLanguages, named: Sequence[str]
) -> tuple[list[Span], list[Probabilities]]:
    """Return the windows and their probabilities, with the parts of those that may hold two languages in their place.

    Nobody pauses long enough for the detector at each change of language.
    """
    mixed = dict(parts_of_mixed(looked_at, glanced))
    parts = [part for each in mixed.values() for part in each]
    heard = iter(_among(await detect(parts, brief=True), named) if parts else ())
    divided: list[tuple[Span, Probabilities]] = []
    for number, (window, each) in enumerate(zip(looked_at, glanced, strict=True)):
        divided += [(part, next(heard)) for part in mixed[number]] if number in mixed else [(window, each)]
    return [window for window, _ in divided], [each for _, each in divided]


def _among(found: Sequence[Probabilities], named: Sequence[str]) -> Sequence[Probabilities]:
    return [among(each, named) for each in found] if named else found


def _votes(language: str, found: Sequence[Probabilities], durations_s: Sequence[float]) -> float:
    """Return the probability of `language` over several chunks among all languages."""
    heard = [(each[language], duration_s) for each, duration_s in zip(found, durations_s, strict=True) if each]
    return sum(probability * duration_s for probability, duration_s in heard) / sum(each for _, each in heard)
