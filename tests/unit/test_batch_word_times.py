"""Word times for batches: by languages, from one encoding, each chunk for itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import ctranslate2
import numpy as np
import pytest

from deployments.transcriber.attention import Attended, Tokenized
from deployments.transcriber.batch_word_times import Untimed, with_words
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.protocol import Chunk
from deployments.transcriber.whisper_model import Whisper
from deployments.types import SAMPLE_RATE_HZ, Span, Utterance
from tests.support.alignment_clips import MODELS, clips

if TYPE_CHECKING:
    from collections.abc import Sequence

BAD = "bad"
MEDIAN_S, P90_S = 0.05, 0.15


@dataclass
class Model:
    """Encoded items are numbers. Looks for an item's words from its number in tenths of a second on; fails as told."""

    error: Exception | None = None
    fits: int = 9
    calls: list[tuple[str, list[int]]] = field(default_factory=list)

    def prompt(self, language: str) -> Any:
        return language

    def tokenized(self, text: str, *, spaced: bool) -> Tokenized:
        written = f" {text}" if spaced else text
        return Tokenized(text=written, ids=(1, 2), offsets=((0, len(written) // 2), (len(written) // 2, len(written))))

    def chosen(self, encoded: Any, items: Sequence[int]) -> list[int]:
        return [encoded[item] for item in items]

    def attend(
        self, encoded: Any, prompt: Any, texts: Sequence[Tokenized], durations_s: Sequence[float]
    ) -> list[Attended]:
        self.calls.append((prompt, encoded))
        if self.error and (len(encoded) > self.fits or any(BAD in text.text for text in texts)):
            raise self.error
        assert durations_s == [1.0] * len(texts)
        return [
            Attended(starts_s=np.array([0.1 * item, 0.1 * item + 0.3, 1.0]), probabilities=np.array([0.5, 0.7]))
            for item in encoded
        ]


def written(item: int, language: str, text: str = "two words") -> Untimed:
    audio = np.random.default_rng(item).normal(scale=900, size=SAMPLE_RATE_HZ).astype(np.int16)
    utterance = Utterance(start_s=10.0, end_s=11.0, text=text, confidence=0.25)
    return Untimed(
        item=item,
        chunk=Chunk(audio=audio, start_s=10.0, language=language),
        language=language,
        utterance=utterance,
    )


BATCH = [written(0, "en"), written(1, "ko", "두 낱말"), written(3, "en"), written(2, "zh", "今天")]
ENCODED = [0, 1, 2, 3]


def test_each_language_is_one_call_and_each_chunk_its_own() -> None:
    """Items of a mixed batch, with one left out, get what each gets alone, in their order."""
    model = Model()
    together = with_words(model, ENCODED, BATCH)
    assert model.calls == [("en", [0, 3]), ("ko", [1]), ("zh", [2])]
    assert together == [with_words(Model(), ENCODED, [each])[0] for each in BATCH]
    for each, (utterance, had) in zip(BATCH, together, strict=True):
        assert had
        assert replace(utterance, words=()) == each.utterance
        assert len(utterance.words) == 2
        assert all(10 <= word.start_s < word.end_s <= 11 for word in utterance.words)
        assert all(word.probability in {0.5, 0.7} and word.alignment_score is None for word in utterance.words)


def test_what_cannot_be_attended_to_falls_alone() -> None:
    """Its words get their letters' share of the time, and it says so; the others of its language have their own."""
    batch = [*BATCH, written(0, "en", f"{BAD} one"), written(1, "en", "  ")]
    found = with_words(Model(ValueError("x")), ENCODED, batch)
    assert [had for _, had in found] == [True] * 4 + [False, True]
    assert found[:4] == with_words(Model(), ENCODED, BATCH)
    assert [(word.start_s, word.probability) for word in found[4][0].words] == [(10.0, 0.25), (10.5, 0.25)]
    assert found[5][0].words == ()


@pytest.mark.parametrize("text", ["CUDA out of memory", "CUDA error: device-side assert triggered"])
def test_what_hits_the_batch_is_raised(text: str) -> None:
    """A lack of memory halves the batch in the back-off, a dead device recycles the replica: neither is hidden here."""
    with pytest.raises(RuntimeError, match="CUDA"):
        with_words(Model(RuntimeError(text), fits=0), ENCODED, BATCH)


# What was encoded, cut


class Storage:
    """A storage as on a GPU: numpy does not see it, and what is on the host is a copy."""

    def __init__(self, values: np.ndarray, kind: Any = ctranslate2.DataType.float32) -> None:
        self.values, self.dtype, self.moves = values, kind, 0
        self.shape = list(values.shape)

    def to_device(self, device: Any) -> Any:
        assert device == ctranslate2.Device.cpu
        self.moves += 1
        return ctranslate2.StorageView.from_array(self.values).to(self.dtype)

    @property
    def __array_interface__(self) -> Any:
        raise AssertionError("numpy cannot see a GPU's memory")


VALUES = np.arange(24, dtype=np.float32).reshape(3, 4, 2)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_items_are_cut_out_of_what_a_gpu_holds(kind: str) -> None:
    """By way of the host, once, in the order asked for, also of types that numpy does not know."""
    storage = Storage(VALUES, getattr(ctranslate2.DataType, kind))
    cut = Whisper.chosen(storage, [2, 0])
    assert storage.moves == 1
    assert isinstance(cut, ctranslate2.StorageView)
    assert np.array_equal(np.asarray(cut), VALUES[[2, 0]])


def test_all_items_need_no_copy() -> None:
    """The usual batch, of one language, is given on as it is."""
    storage = Storage(VALUES)
    assert Whisper.chosen(storage, [0, 1, 2]) is storage
    assert storage.moves == 0


# Against the synthesizers' own times


def test_words_lie_where_they_are_said() -> None:
    """Six voices of tests/data/alignment, known text, two sentences a chunk; a model that no setting was chosen with.

    Starts and ends within 50 ms in the median, nine of ten within 0.15 s, and no word over a pause.
    """
    model = Whisper(TranscriberConfig(engine="whisperx", model=str(MODELS / "asr"), device="cpu", threads=1))
    off_s: list[tuple[float, float]] = []
    for clip in clips():
        for first in range(0, len(clip.truth), 2):
            pair = clip.truth[first : first + 2]
            span = Span(start_s=pair[0].start_s, end_s=pair[-1].end_s)
            chunk = Chunk(audio=span.of(clip.audio), start_s=span.start_s, language=clip.language)
            text = " ".join(each.text.capitalize() + "." for each in pair)
            utterance = Utterance(start_s=span.start_s, end_s=span.end_s, text=text)
            encoded = model.encode([model.features(chunk.audio, model.window_s(len(chunk.audio)))])
            untimed = Untimed(item=0, chunk=chunk, language=clip.language, utterance=utterance)
            [(found, had)] = with_words(model, encoded, [untimed])
            said = [word for each in pair for word in each.words]
            assert had
            assert len(found.words) == len(said)
            off_s += [(a.start_s - b.start_s, a.end_s - b.end_s) for a, b in zip(found.words, said, strict=True)]
            for before, after in pairwise(pair):
                pause = Span(start_s=before.words[-1].end_s + 0.1, end_s=after.words[0].start_s - 0.1)
                assert not any(word.overlap_s(pause) for word in found.words)
    off = np.abs(off_s)
    assert (np.median(off, axis=0) <= MEDIAN_S).all(), np.median(off, axis=0)
    assert (np.quantile(off, 0.9, axis=0) <= P90_S).all(), np.quantile(off, 0.9, axis=0)


def test_a_copy_of_the_encoding_is_as_good() -> None:
    """Sentences in two languages from one encoding, cut on the host: the very words that each gets from its own."""
    model = Whisper(TranscriberConfig(engine="whisperx", model=str(MODELS / "asr"), device="cpu", threads=1))
    english, korean = (next(clip for clip in clips() if clip.language == language) for language in ("en", "ko"))
    batch = []
    for item, (clip, number) in enumerate(((english, 0), (korean, 0), (english, 1))):
        said = clip.truth[number]
        chunk = Chunk(audio=said.of(clip.audio), start_s=said.start_s, language=clip.language)
        batch.append(Untimed(item=item, chunk=chunk, language=clip.language, utterance=replace(said, words=())))
    together = with_words(model, model.encode([model.features(each.chunk.audio) for each in batch]), batch)
    for each, (found, had) in zip(batch, together, strict=True):
        alone = with_words(model, model.encode([model.features(each.chunk.audio)]), [replace(each, item=0)])
        assert had
        assert [(w.text, w.start_s, w.end_s) for w in found.words] == [
            (w.text, w.start_s, w.end_s) for w in alone[0][0].words
        ]
