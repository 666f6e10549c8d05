"""Times the words of a batch of chunks by the recogniser's attention and the sound.

Knows nothing of Ray or jobs. Chunks of a batch may be of several languages and vocabularies: each pair of
them is one call of the model.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from deployments import logs
from deployments.aligner.proportional import timed
from deployments.aligner.vocabulary import LANGUAGES_WITHOUT_SPACES, words_of
from deployments.batch_backoff import in_halves
from deployments.transcriber.attention import attended_words
from deployments.transcriber.whisper_model import LONGEST_TEXT
from deployments.transcriber.word_times import place, silences
from deployments.types import SAMPLE_RATE_HZ, Span, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.transcriber.attention import Attended, Tokenized
    from deployments.transcriber.protocol import Chunk
    from deployments.transcriber.whisper_model import Whisper
    from deployments.types import Utterance

log = logs.get_logger("word_times")


@dataclass(frozen=True, slots=True, kw_only=True)
class Untimed:
    """An utterance without word times. `item`: the row of its chunk in the encoder's output."""

    item: int
    chunk: Chunk
    language: str
    utterance: Utterance


def with_words(model: Whisper, encoded: object, written: Sequence[Untimed]) -> list[tuple[Utterance, bool]]:
    """Return each utterance with its words, and False where attention failed and its words are timed by letters.

    Raises what fails the whole batch: a lack of memory, a dead device.
    """
    answers = {number: (each.utterance, True) for number, each in enumerate(written)}
    by_prompt: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    for number, each in enumerate(written):
        if words_of(each.utterance.text, each.language):
            by_prompt[each.language, each.chunk.vocabulary].append(number)
    for (language, _), numbers in by_prompt.items():
        spaced = language not in LANGUAGES_WITHOUT_SPACES
        texts = [(written[n], model.tokenized(written[n].utterance.text, spaced=spaced)) for n in numbers]
        attended = in_halves(partial(_attend, model, encoded), texts)
        for number, (each, text), attention in zip(numbers, texts, attended, strict=True):
            answers[number] = _timed(each, text, attention)
    return [answers[number] for number in range(len(written))]


def _attend(model: Whisper, encoded: object, texts: Sequence[tuple[Untimed, Tokenized]]) -> list[Attended]:
    """Return the attention of chunks of one language and vocabulary.

    Words are as likely as they were to the decoder, with the vocabulary; their times are those without it, which are
    better: it draws the attention a little, now and then into the pause before a word.
    """
    chosen = model.chosen(encoded, [each.item for each, _ in texts])
    tokens, durations_s = [text for _, text in texts], [len(each.chunk.audio) / SAMPLE_RATE_HZ for each, _ in texts]
    plain = model.prompt(texts[0][0].language)
    timed = model.attend(chosen, plain, tokens, durations_s)
    told = _prompt(model, texts[0][0], max(len(text.ids) for text in tokens))
    if told == plain:
        return timed
    judged = model.attend(chosen, told, tokens, durations_s)
    return [replace(each, probabilities=b.probabilities) for each, b in zip(timed, judged, strict=True)]


def _prompt(model: Whisper, each: Untimed, longest: int) -> list[int]:
    """Return what the text was written after; without the vocabulary where it leaves no room for `longest` tokens."""
    prompt = model.prompt(each.language)
    before = model.text_before(each.chunk.vocabulary).ids if each.chunk.vocabulary else ()
    return [*before, *prompt] if before and len(before) + len(prompt) + longest < LONGEST_TEXT else prompt


def _timed(each: Untimed, text: Tokenized, attended: Attended | Exception) -> tuple[Utterance, bool]:
    if isinstance(attended, Exception):
        log.warning("no attention for a chunk", extra={"error": f"{type(attended).__name__}: {attended}"})
        return timed(each.utterance, each.language), False
    words = attended_words(text, attended, each.language)
    silent = silences(each.chunk.audio, _relative(each.chunk))
    spans = place([word.start_s for word in words], [word.text for word in words], silent)
    if spans is None:  # the chunk is too short to tell its words apart
        return timed(each.utterance, each.language), True
    at_s, end_s = each.utterance.start_s, each.utterance.end_s
    placed = tuple(
        Word(
            start_s=min(at_s + span.start_s, end_s),
            end_s=min(at_s + span.end_s, end_s),
            text=word.text,
            probability=word.probability,
        )
        for word, span in zip(words, spans, strict=True)
    )
    return replace(each.utterance, words=placed), True


def _relative(chunk: Chunk) -> list[Span] | None:
    """Return the detected speech of `chunk` in seconds from its start."""
    if chunk.speech is None:
        return None
    return [Span(start_s=span.start_s - chunk.start_s, end_s=span.end_s - chunk.start_s) for span in chunk.speech]
