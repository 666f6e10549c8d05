"""Splits text into the tokens that Whisper was trained with. Knows the vocabulary and nothing of the model.

The tokenizer.json of Systran's conversions lacks the merge of a space with `t`, and so splits ` there` into ` ` and
`there`, which the decoder never writes and gives a probability near 0. So only its vocabulary is used, as in
openai/whisper's tokenizer.py: of two merges the one with the lower id comes first.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final

from tiktoken import Encoding

from deployments.transcriber.attention import Tokenized

if TYPE_CHECKING:
    from collections.abc import Sequence

PRE_TOKENS: Final = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's pattern, which Whisper uses, too: no token crosses these borders."""


def encoding_of(tokenizer: Any, end: int) -> Encoding:
    """Return the encoding with the vocabulary of a `tokenizers.Tokenizer`. Tokens of text have ids below `end`."""
    byte_of = _bytes_by_sign()
    vocabulary = tokenizer.get_vocab(with_added_tokens=False).items()
    ranks = {bytes(byte_of[sign] for sign in token): number for token, number in vocabulary if number < end}
    return Encoding("whisper", pat_str=PRE_TOKENS, mergeable_ranks=ranks, special_tokens={})


def tokenized(text: str, encoding: Encoding) -> Tokenized:
    """Split `text` into tokens, with the characters that each of them writes."""
    ids = encoding.encode_ordinary(text)
    character_of = [at for at, character in enumerate(text) for _ in character.encode()]
    edges = pairwise(accumulate((len(encoding.decode_single_token_bytes(token)) for token in ids), initial=0))
    offsets = tuple((character_of[start], character_of[end - 1] + 1) for start, end in edges)
    return Tokenized(text=text, ids=tuple(ids), offsets=offsets)


def _bytes_by_sign() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for: GPT-2's table."""
    shown: Sequence[int] = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = (byte for byte in range(256) if byte not in shown)
    return {chr(byte): byte for byte in shown} | {chr(256 + number): byte for number, byte in enumerate(hidden)}
