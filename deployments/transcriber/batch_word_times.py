"""Times the words of a batch of chunks by the recogniser's attention and the sound.

Knows nothing of Ray or jobs. Chunks of a batch may be of several languages: each language is one call of the model.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from deployments import logs
from deployments.aligner.proportional import timed
from deployments.aligner.vocabulary import LANGUAGES_WITHOUT_SPACES, words_of
from deployments.batch_backoff import is_dead_device, is_out_of_memory
from deployments.transcriber.attention import attended_words
from deployments.transcriber.word_times import place, silences
from deployments.types import SAMPLE_RATE_HZ, Span, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.transcriber.attention import Attended, Tokenized
    from deployments.transcriber.protocol import Chunk
    from deployments.types import Utterance

log = logs.get_logger("word_times")


class Attentive(Protocol):
    """What word times need of a model. See `whisper_model.Whisper`."""

    def prompt(self, language: str) -> list[int]: ...  # noqa: D102

    def tokenized(self, text: str, *, spaced: bool) -> Tokenized: ...  # noqa: D102

    def chosen(self, encoded: object, items: Sequence[int]) -> object: ...  # noqa: D102

    def attend(  # noqa: D102
        self, encoded: object, prompt: list[int], texts: Sequence[Tokenized], durations_s: Sequence[float]
    ) -> list[Attended]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Untimed:
    """An utterance without word times. `item`: the row of its chunk in the encoder's output."""

    item: int
    chunk: Chunk
    language: str
    utterance: Utterance


def with_words(model: Attentive, encoded: object, written: Sequence[Untimed]) -> list[tuple[Utterance, bool]]:
    """Return each utterance with its words, and False where attention failed and its words are timed by letters.

    Raises what fails the whole batch: a lack of memory, a dead device.
    """
    by_language: dict[str, list[int]] = defaultdict(list)
    for number, each in enumerate(written):
        if words_of(each.utterance.text, each.language):
            by_language[each.language].append(number)
    attention: dict[int, Attended | None] = {}
    tokens: dict[int, Tokenized] = {}
    for language, numbers in by_language.items():
        spaced = language not in LANGUAGES_WITHOUT_SPACES
        for number in numbers:
            tokens[number] = model.tokenized(written[number].utterance.text, spaced=spaced)
        attended = _attend(model, encoded, [written[number] for number in numbers], [tokens[n] for n in numbers])
        attention.update(zip(numbers, attended, strict=True))
    return [_timed(each, tokens.get(number), attention.get(number)) for number, each in enumerate(written)]


def _attend(model: Attentive, encoded: object, written: list[Untimed], texts: list[Tokenized]) -> list[Attended | None]:
    """Return the attention of chunks of one language; None for failures. A failed batch is retried in halves."""
    try:
        return list(
            model.attend(
                model.chosen(encoded, [each.item for each in written]),
                model.prompt(written[0].language),
                texts,
                [len(each.chunk.audio) / SAMPLE_RATE_HZ for each in written],
            )
        )
    except Exception as error:
        if is_out_of_memory(error) or is_dead_device(error):
            raise
        if len(written) == 1:
            log.warning("no attention for a chunk", extra={"error": f"{type(error).__name__}: {error}"})
            return [None]
    half = len(written) // 2
    return _attend(model, encoded, written[:half], texts[:half]) + _attend(model, encoded, written[half:], texts[half:])


def _timed(each: Untimed, text: Tokenized | None, attended: Attended | None) -> tuple[Utterance, bool]:
    if text is None or attended is None:
        return timed(each.utterance, each.language), text is None
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
