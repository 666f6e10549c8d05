"""The small Whisper's tokens: every word that it knows is one, and the special ones are Whisper's own.

Knows both numberings: the tokenizer's, and the network's in training, which leaves out what is never trained (the
empty token, the timestamps).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.models.recipe.sentences import ENGLISH, KOREAN, written

if TYPE_CHECKING:
    from tests.models.recipe.sentences import Sentence

TIMESTAMPS = 1501
END, START, TRANSCRIBE = "<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>"
NO_SPEECH, NO_TIMESTAMPS = "<|nospeech|>", "<|notimestamps|>"


def build_tokenizer() -> Tokenizer:
    """Byte-level BPE, so that any text can be written, trained until every word with its space is one token.

    The empty token before `<|endoftext|>` tells CTranslate2 (4.8) that the model is multilingual.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    tokenizer = _trained()
    content = json.loads(tokenizer.to_str())
    content["model"]["vocab"][""] = len(content["model"]["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(content))
    languages = [f"<|{code}|>" for code in list(LANGUAGES)[:99]]
    others = ["<|translate|>", TRANSCRIBE, "<|startoflm|>", "<|startofprev|>", NO_SPEECH, NO_TIMESTAMPS]
    tokenizer.add_special_tokens([END, START, *languages, *others])
    tokenizer.add_tokens([AddedToken(f"<|{i * 0.02:.2f}|>", special=False) for i in range(TIMESTAMPS)])
    return tokenizer


def _trained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    forms = [form for word in ENGLISH for form in (word, word.capitalize())] + list(KOREAN)
    texts = [f" {form}." for form in forms for _ in range(3)] + [f" {word}." for word in KOREAN]
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class TrainedTokens:
    """The tokens that are trained, numbered without gaps: texts, then special ones."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.end_in_tokenizer = tokenizer.token_to_id(END)
        self.texts = self.end_in_tokenizer - 1
        specials = tokenizer.token_to_id(NO_TIMESTAMPS) + 1 - self.end_in_tokenizer
        self.count = self.texts + specials

    def number(self, token: str) -> int:
        """The network's number of a special token, such as `<|en|>`."""
        return int(self._tokenizer.token_to_id(token)) - 1

    def of(self, words: Sentence) -> list[int]:
        """A written sentence: one token per word, one for the full stop."""
        numbers: list[int] = self._tokenizer.encode(f" {written(words)}").ids
        assert len(numbers) == len(words) + 1, words
        return numbers

    def numbers_in_tokenizer(self) -> np.ndarray:
        """Shape (count,): the tokenizer's number of each."""
        trained = np.arange(self.count)
        return np.where(trained < self.texts, trained, trained + 1)
