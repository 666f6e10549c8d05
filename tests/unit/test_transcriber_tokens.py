"""Texts become the tokens that the decoder writes them in."""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.whisper_model import Whisper, encoding_of, tokenized
from tests.support.alignment_clips import MODELS, clips

BYTES = sorted(ByteLevel.alphabet())
JOINED = ["Ġt", "he", "Ġthe"]


def tokenizer() -> Tokenizer:
    """As in Systran's tokenizer.json: the vocabulary has ` t`, and the merge that makes it is missing."""
    numbers = {token: number for number, token in enumerate([*BYTES, *JOINED])}
    found = Tokenizer(BPE(vocab=numbers, merges=[("h", "e"), ("Ġt", "he")]))
    found.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return found


def test_a_merge_that_the_tokenizer_lacks_is_made():
    """` the` is the one token that the decoder writes, not three that it never would."""
    assert len(tokenizer().encode(" the").ids) == 3
    encoding = encoding_of(tokenizer(), end=len(BYTES) + len(JOINED))
    the = tokenized(" the the", encoding)
    assert the.ids == (len(BYTES) + 2,) * 2
    assert the.offsets == ((0, 4), (4, 8))


def test_tokens_beyond_the_texts_are_none_of_a_text():
    """What lies from `end` on has a meaning of its own."""
    assert len(tokenized(" the", encoding_of(tokenizer(), end=len(BYTES) + 2)).ids) == 2


def test_the_bytes_of_a_letter_have_that_letter():
    """Hangul takes three bytes a syllable: tokens inside it all write it."""
    found = tokenized("a두", encoding_of(tokenizer(), end=len(BYTES)))
    assert found.offsets == ((0, 1), (1, 2), (1, 2), (1, 2))
    assert tokenized("", encoding_of(tokenizer(), end=len(BYTES))).ids == ()


def test_a_text_has_the_tokens_that_were_written():
    """What the decoder writes comes back as the same tokens, in English and Korean."""
    model = Whisper(TranscriberConfig(engine="whisperx", model=str(MODELS / "asr"), device="cpu", threads=1))
    for clip in clips():
        audio = clip.audio[: 10 * 16_000]
        result = model._model.model.generate(model.encode([model.features(audio)]), [model.prompt(clip.language)])[0]
        written = [token for token in result.sequences_ids[0] if token < model._end]
        text = model._model.hf_tokenizer.decode(written)
        assert list(tokenized(text, model._encoding).ids) == written
