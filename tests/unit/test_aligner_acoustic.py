from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from deployments.aligner import acoustic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from deployments.types import Audio

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *string.ascii_lowercase]
TOLERANCE = 1e-4
"""Of a log-probability: what rounding makes of the same sums in another order."""
CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 8),
    "conv_stride": (8, 8, 5),
    "num_feat_extract_layers": 3,
}


def audios() -> list[Audio]:
    """Sounds of very different lengths and levels, a DC offset among them."""
    draw = np.random.default_rng(3)
    made = [draw.normal(scale=scale, size=size) for scale, size in ((3000, 40_000), (30, 9_000), (500, 24_321))]
    return [(made[0]).astype(np.int16), (made[1] + 900).astype(np.int16), made[2].astype(np.int16)]


def hugging_face(folder: Path, norm: str) -> str:
    """A model with random weights and its processor, as a local folder: base-like (`group`) or large-like (`layer`)."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(LETTERS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        conv_bias=norm == "layer",
        pad_token_id=0,
        **CONVOLUTIONS,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    labels = {letter: column for column, letter in enumerate(LETTERS)} | {"<extra>": len(LETTERS)}
    (folder / "vocab.json").write_text(json.dumps(labels))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>", "word_delimiter_token": "|"}))
    settings = {"do_normalize": norm == "layer", "return_attention_mask": norm == "layer", "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.fixture(params=["group", "layer"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[acoustic.AcousticModel, Callable[[Audio], Any]]:
    """Our model, and transformers' own answer to one audio alone."""
    name = hugging_face(tmp_path, request.param)
    bare = Wav2Vec2ForCTC.from_pretrained(name).eval()

    def alone(audio: Audio) -> torch.Tensor:
        samples = torch.from_numpy(audio.astype(np.float32) / 32768)
        if request.param == "layer":
            samples = (samples - samples.mean()) / torch.sqrt(samples.var(unbiased=False) + 1e-7)
        with torch.inference_mode():
            return bare(samples[None]).logits[0].log_softmax(-1)

    return acoustic.load(name, "cpu"), alone


def assert_equal(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= TOLERANCE


def test_a_batch_gives_what_transformers_gives_one_by_one(
    pair: tuple[acoustic.AcousticModel, Callable[[Audio], Any]],
) -> None:
    """With group norm and with layer norm, normalised or not: padding and neighbours change nothing but rounding."""
    model, alone = pair
    assert_equal(model.emissions(audios()), [alone(audio) for audio in audios()])
    assert_equal(model.emissions(audios()[::-1]), [alone(audio) for audio in audios()[::-1]])


def test_padding_before_group_norm_would_change_answers(tmp_path: Path) -> None:
    """Why the front end runs utterance by utterance: padded as a whole, the same model answers differently."""
    bare = Wav2Vec2ForCTC.from_pretrained(hugging_face(tmp_path, "group")).eval()
    long, short, _ = (torch.from_numpy(audio.astype(np.float32) / 32768) for audio in audios())
    padded = torch.nn.utils.rnn.pad_sequence([long, short], batch_first=True)
    mask = torch.arange(len(long)) < torch.tensor([[len(long)], [len(short)]])
    with torch.inference_mode():
        alone = bare(short[None]).logits[0]
        together = bare(padded, attention_mask=mask.long()).logits[1, : len(alone)]
    assert float((alone - together).abs().max()) > 100 * TOLERANCE


def test_what_the_columns_mean(pair: tuple[acoustic.AcousticModel, Callable[[Audio], Any]]) -> None:
    """Letters, blank and delimiter by the tokenizer; special labels and those beyond the columns are no letters."""
    known = pair[0].vocabulary
    assert (known.blank, known.delimiter, known.size) == (0, 4, len(LETTERS))
    assert "".join(known.letters) == string.ascii_lowercase


def test_the_shortest_audio_has_one_frame(pair: tuple[acoustic.AcousticModel, Callable[[Audio], Any]]) -> None:
    """`min_samples` is where frames begin: one sample less is refused."""
    model, _ = pair
    assert model.min_samples == 10 + 7 * 8 + 7 * 64
    [emission] = model.emissions([audios()[0][: model.min_samples]])
    assert emission.shape == (1, len(LETTERS))
    with pytest.raises(ValueError, match="shorter"):
        model.emissions([audios()[0][: model.min_samples - 1]])


def test_the_audio_is_not_written_to(pair: tuple[acoustic.AcousticModel, Callable[[Audio], Any]]) -> None:
    """Read-only audio, as Ray hands it out, is enough."""
    audio = audios()[0]
    before = audio.copy()
    audio.flags.writeable = False
    pair[0].emissions([audio])
    assert np.array_equal(audio, before)


def test_layers_that_are_not_known_are_refused(tmp_path: Path) -> None:
    """An adapter behind the encoder would halve the frames: a clear error and no wrong times."""
    name = hugging_face(tmp_path, "group")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"add_adapter": True, "output_hidden_size": 32, "num_adapter_layers": 1}
    Wav2Vec2ForCTC(Wav2Vec2Config(**config)).save_pretrained(name)
    with pytest.raises(ValueError, match="adapter"):
        acoustic.load(name, "cpu")
