"""Whisper's weights in CTranslate2's form, written as whisper.cpp reads them: for the comparison alone.

The form is that of `models/convert-h5-to-ggml.py` and `examples/quantize` in ggml-org/whisper.cpp: a header, the mel
filters, the tokens as bytes, then tensors by OpenAI's names. Matrices are Q8_0 (blocks of 32 int8 with a float16
scale), which stands for int8; the two convolutions float16; all else float32.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MAGIC: Final = 0x67676D6C
FLOAT32, FLOAT16, Q8_0 = 0, 1, 8
MOSTLY_Q8_0: Final = 2007
"""The file's type, with the version of the quantized forms (2) in thousands."""
BLOCK: Final = 32
WIDE: Final = {1: np.dtype(np.int8), 2: np.dtype(np.int16), 3: np.dtype(np.int32), 0: np.dtype(np.float32)}
"""CTranslate2's numbers of types, without float16 (4)."""


def write_ggml(model: Path, target: Path) -> None:
    """Write the model of the folder `model` (CTranslate2's Whisper in float16 or float32, tokenizer.json) to a file."""
    weights = dict(_weights(model / "model.bin"))
    tokens = _tokens(model / "tokenizer.json")
    audio_context, width = weights["encoder/position_encodings/encodings"].shape
    text_context = len(weights["decoder/position_encodings/encodings"])
    vocabulary = len(weights["decoder/embeddings/weight"])
    mels = weights["encoder/conv1/weight"].shape[1]
    layers = sum(name.startswith("encoder/layer_") and name.endswith("/ffn/linear_0/bias") for name in weights)
    heads = width // 64
    with target.open("wb") as file:
        sizes = (vocabulary, audio_context, width, heads, layers, text_context, width, heads, layers, mels)
        file.write(struct.pack("<12i", MAGIC, *sizes, MOSTLY_Q8_0))
        filters = _mel_filters(mels)
        file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        file.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            file.write(struct.pack("<i", len(token)) + token)
        for name, tensor in _tensors(weights, layers):
            _write(file, name, tensor)


def _weights(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield CTranslate2's variables (version 6 of its form)."""
    with path.open("rb") as file:

        def read(form: str) -> tuple[Any, ...]:
            return struct.unpack(form, file.read(struct.calcsize(form)))

        def text() -> str:
            return file.read(read("<H")[0])[:-1].decode()

        read("<I")  # the form's version
        text()
        _, count = read("<II")
        for _ in range(count):
            name = text()
            shape = read(f"<{read('<B')[0]}I")
            kind, size = read("<BI")
            yield name, np.frombuffer(file.read(size), WIDE.get(kind, np.dtype(np.float16))).reshape(shape)


def _tokens(path: Path) -> list[bytes]:
    """Return the text tokens as bytes, in order of their ids: GPT-2 writes each byte as a printable character."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}
    ids: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    return [bytes(byte_of[letter] for letter in token) for token in sorted(ids, key=ids.__getitem__)]


def _mel_filters(mels: int) -> NDArray[np.float32]:
    from librosa.filters import mel

    filters: NDArray[np.float32] = mel(sr=16000, n_fft=400, n_mels=mels).astype(np.float32)
    return filters


def _tensors(weights: dict[str, NDArray[Any]], layers: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the tensors under OpenAI's names; CTranslate2 stores those of one input as one."""

    def norm(ours: str, theirs: str) -> Iterator[tuple[str, NDArray[Any]]]:
        yield f"{theirs}.weight", weights[f"{ours}/gamma"]
        yield f"{theirs}.bias", weights[f"{ours}/beta"]

    def linear(ours: str, *theirs: str) -> Iterator[tuple[str, NDArray[Any]]]:
        matrices = np.split(weights[f"{ours}/weight"], len(theirs))
        for name, matrix, bias in zip(theirs, matrices, np.split(weights[f"{ours}/bias"], len(theirs)), strict=True):
            yield f"{name}.weight", matrix
            if not name.endswith(".key"):  # which has none
                yield f"{name}.bias", bias

    for part in ("encoder", "decoder"):
        yield f"{part}.positional_embedding", weights[f"{part}/position_encodings/encodings"].astype(np.float32)
        for at in range(layers):
            ours, theirs = f"{part}/layer_{at}", f"{part}.blocks.{at}"
            yield from norm(f"{ours}/self_attention/layer_norm", f"{theirs}.attn_ln")
            kinds = (f"{theirs}.attn.{kind}" for kind in ("query", "key", "value"))
            yield from linear(f"{ours}/self_attention/linear_0", *kinds)
            yield from linear(f"{ours}/self_attention/linear_1", f"{theirs}.attn.out")
            if part == "decoder":
                yield from norm(f"{ours}/attention/layer_norm", f"{theirs}.cross_attn_ln")
                yield from linear(f"{ours}/attention/linear_0", f"{theirs}.cross_attn.query")
                kinds = (f"{theirs}.cross_attn.{kind}" for kind in ("key", "value"))
                yield from linear(f"{ours}/attention/linear_1", *kinds)
                yield from linear(f"{ours}/attention/linear_2", f"{theirs}.cross_attn.out")
            yield from norm(f"{ours}/ffn/layer_norm", f"{theirs}.mlp_ln")
            yield from linear(f"{ours}/ffn/linear_0", f"{theirs}.mlp.0")
            yield from linear(f"{ours}/ffn/linear_1", f"{theirs}.mlp.2")
    for name in ("conv1", "conv2"):
        yield f"encoder.{name}.weight", weights[f"encoder/{name}/weight"]
        yield f"encoder.{name}.bias", weights[f"encoder/{name}/bias"][:, None]
    yield from norm("encoder/layer_norm", "encoder.ln_post")
    yield from norm("decoder/layer_norm", "decoder.ln")
    yield "decoder.token_embedding.weight", weights["decoder/embeddings/weight"]


def _write(file: BinaryIO, name: str, tensor: NDArray[Any]) -> None:
    kind, content = FLOAT32, tensor.astype(np.float32)
    if tensor.ndim == 3:
        kind, content = FLOAT16, tensor.astype(np.float16)
    stored = content.tobytes()
    if tensor.ndim == 2 and name.endswith(".weight"):
        kind, stored = Q8_0, _quantized(content)
    shown = name.encode()
    file.write(struct.pack("<3i", tensor.ndim, len(shown), kind))
    file.write(struct.pack(f"<{tensor.ndim}i", *reversed(tensor.shape)) + shown + stored)


def _quantized(matrix: NDArray[np.float32]) -> bytes:
    blocks = matrix.reshape(-1, BLOCK)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / 127
    packed = np.empty(len(blocks), [("scale", np.float16), ("values", np.int8, BLOCK)])
    packed["scale"] = scales[:, 0]
    packed["values"] = np.rint(blocks / np.where(scales, scales, 1))
    return packed.tobytes()
