"""Models with random weights, of the sizes that production uses or very small, made without a network.

How long a network takes does not depend on what it has learned: only the clock reads these models. Each function makes
one folder in the form that our engines load. Imports what it needs inside, so that a machine that lacks one library
still makes the other models.

    large   Whisper large-v3; wav2vec2-large as aligner and as classifier; community-1's networks and clustering
    tiny    the same forms in a thousandth of the size, for tests on a CPU
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tests.benchmarks.scripted_talk import scripted_talk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from deployments.speech_detector.network import PyanNet

SMALL_MODELS: Final = Path(__file__).parents[1] / "models"
"""Where vocabularies and settings without weights are copied from."""
SPREAD: Final = 0.02
"""Standard deviation of weights: what transformers are initialised with, so that nothing overflows in float16."""
SEED: Final = 2026
EMOTIONS: Final = ("neu", "hap", "sad", "ang", "fea", "dis", "sur", "calm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    whisper_layers: int
    """Of the encoder, and of the decoder."""
    whisper_width: int
    whisper_heads: int
    mels: int
    letters: int
    """Whisper's text tokens; the others (languages, tasks, times) are always large-v3's."""
    tokens: int
    """Tokens that are written per chunk: 28 s of English are about 80 words, 1.4 tokens each."""
    wav2vec2: dict[str, Any]
    """What differs from `Wav2Vec2Config`'s own."""
    segmentation: dict[str, Any]
    """Layers of pyannote's `PyanNet`."""
    voice_encoder: str
    """A class of pyannote.audio.models.embedding."""


LARGE: Final = Sizes(
    whisper_layers=32,
    whisper_width=1280,
    whisper_heads=20,
    mels=128,
    letters=50257,
    tokens=112,
    wav2vec2={"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    segmentation={"lstm": {"hidden_size": 128, "num_layers": 4}, "linear": {"hidden_size": 128, "num_layers": 2}},
    voice_encoder="WeSpeakerResNet34",
)
TINY: Final = Sizes(
    whisper_layers=1,
    whisper_width=32,
    whisper_heads=2,
    mels=80,
    letters=256,
    tokens=8,
    wav2vec2={
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    },
    segmentation={"lstm": {"hidden_size": 8, "num_layers": 1}, "linear": {"hidden_size": 8, "num_layers": 1}},
    voice_encoder="XVectorMFCC",
)
SIZES: Final = {"large": LARGE, "tiny": TINY}


def once(folder: Path, make: Callable[[Path], None]) -> str:
    """The folder's name, made by `make` where it is not there yet; a model half made is never found."""
    if not folder.is_dir():
        unfinished = folder.with_name(folder.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(folder)
    return str(folder)


def whisper(folder: Path, sizes: Sizes) -> None:
    """A Whisper in CTranslate2's form. It never writes the end of a text, nor anything but letters."""
    from ctranslate2.specs import WhisperSpec

    tokens = whisper_tokens(sizes.letters)
    width, layers, heads = sizes.whisper_width, sizes.whisper_layers, sizes.whisper_heads
    draw = Weights(most=max(len(tokens), 4 * width) * width)
    spec = WhisperSpec(layers, heads, layers, heads)
    for convolution, channels in ((spec.encoder.conv1, sizes.mels), (spec.encoder.conv2, width)):
        convolution.weight, convolution.bias = draw(width, channels, 3), draw(width)
    spec.encoder.position_encodings.encodings = draw(1500, width)
    spec.decoder.position_encodings.encodings = draw(448, width)
    spec.decoder.embeddings.weight = draw(len(tokens), width)
    spec.decoder.projection.weight = spec.decoder.embeddings.weight
    for part in (spec.encoder, spec.decoder):
        normal(part.layer_norm, width)
        for layer in part.layer:
            attention(layer.self_attention, draw, width, (3, 1))
            if part is spec.decoder:
                attention(layer.attention, draw, width, (1, 2, 1))
            normal(layer.ffn.layer_norm, width)
            linear(layer.ffn.linear_0, draw, 4 * width, width)
            linear(layer.ffn.linear_1, draw, width, 4 * width)
    spec.register_vocabulary(tokens)
    spec.validate()
    spec.decoder.projection.weight = "decoder/embeddings/weight"  # the same numbers, kept once, as in every Whisper
    spec.config.suppress_ids = list(range(sizes.letters, len(tokens)))
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = [tokens.index(token) for token in tokens if token[2:-2] in languages()]
    spec.config.alignment_heads = [(layers - 1, 0)]
    spec.save(str(folder))
    save_tokenizer(folder / "tokenizer.json", tokens, sizes.letters)
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": sizes.mels, "n_fft": 400}))


class Weights:
    """Random float16 weights, cut out of one pool at random places: drawing 1.5 billion would take a minute."""

    def __init__(self, *, most: int) -> None:
        self._draw = np.random.default_rng(SEED)
        self._pool = (self._draw.standard_normal(most + 1_000_003, np.float32) * SPREAD).astype(np.float16)

    def __call__(self, *shape: int) -> NDArray[np.float16]:
        count = int(np.prod(shape))
        first = int(self._draw.integers(len(self._pool) - count))
        return self._pool[first : first + count].reshape(shape)


def linear(spec: Any, draw: Weights, rows: int, columns: int) -> None:
    """A linear layer's weights and bias."""
    spec.weight, spec.bias = draw(rows, columns), draw(rows)


def normal(spec: Any, width: int) -> None:
    """A layer norm that changes nothing."""
    spec.gamma, spec.beta = np.ones(width, np.float16), np.zeros(width, np.float16)


def attention(spec: Any, draw: Weights, width: int, parts: Sequence[int]) -> None:
    """An attention's norm and projections; `parts` says how many of them each of its matrices holds."""
    normal(spec.layer_norm, width)
    for projection, several in zip(spec.linear, parts, strict=True):
        linear(projection, draw, several * width, width)


def languages() -> list[str]:
    """Codes of large-v3's languages."""
    from deployments.transcriber.config import EVERY_MODELS

    return [*sorted(EVERY_MODELS - {"yue"}), "yue"]


def whisper_tokens(letters: int) -> list[str]:
    """A vocabulary as large-v3's: text, languages, tasks, times; only that its text is made up."""
    text = [f"\u0120{number:x}" for number in range(letters - 1)]
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    special = ["endoftext", "startoftranscript", *languages(), *tasks, *(f"{i * 0.02:.2f}" for i in range(1501))]
    return [*text, "", *(f"<|{token}|>" for token in special)]


def save_tokenizer(path: Path, tokens: Sequence[str], letters: int) -> None:
    """The vocabulary in the form of the tokenizers library."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in tokens[letters:]])
    made.save(str(path), pretty=False)


def wav2vec2(folder: Path, sizes: Sizes, *, labels: Sequence[str] = ()) -> None:
    """A wav2vec2 of the large kind (layer norm everywhere): an aligner, or with `labels` a classifier of sound."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2ForSequenceClassification

    source = SMALL_MODELS / ("emotion" if labels else "aligner")
    vocabulary = json.loads((SMALL_MODELS / "aligner" / "vocab.json").read_text(encoding="utf-8"))
    config = Wav2Vec2Config(
        vocab_size=len(vocabulary),
        pad_token_id=0,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        **(
            {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
            if labels
            else {}
        ),
        **sizes.wav2vec2,
    )
    torch.manual_seed(SEED)
    kind = Wav2Vec2ForSequenceClassification if labels else Wav2Vec2ForCTC
    kind(config).save_pretrained(folder)
    for path in source.glob("*.json"):
        if path.name != "config.json":
            shutil.copyfile(path, folder / path.name)


def aligner(folder: Path, sizes: Sizes) -> None:
    """An acoustic model that spells English."""
    wav2vec2(folder, sizes)


def emotion(folder: Path, sizes: Sizes) -> None:
    """A classifier of moods."""
    wav2vec2(folder, sizes, labels=EMOTIONS)


def diarizer(folder: Path, sizes: Sizes) -> None:
    """A pipeline directory as community-1's: powerset segmentation over 10 s, a voice encoder, VBx over a PLDA."""
    import deployments.diarizer.piecewise  # noqa: F401, I001 - imports pyannote without telemetry and warnings
    import torch
    import yaml
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models import embedding

    from tests.support.small_diarizer import save_checkpoint, save_powerset_network

    for part in ("segmentation", "embedding", "plda"):
        (folder / part).mkdir()
    torch.manual_seed(SEED)
    window = torch.from_numpy(scripted_talk(10.0).audio.astype(np.float32) / 2**15)
    save_powerset_network(folder / "segmentation" / "pytorch_model.bin", window[None, None], **sizes.segmentation)
    encoder = getattr(embedding, sizes.voice_encoder)()
    encoder.specifications = Specifications(problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=10.0)
    save_checkpoint(encoder, folder / "embedding" / "pytorch_model.bin")
    save_plda(folder / "plda", encoder.dimension)
    content = yaml.safe_load((SMALL_MODELS / "diarizer" / "config.yaml").read_text(encoding="utf-8"))
    content["pipeline"]["params"] |= {"clustering": "VBxClustering", "segmentation_step": 0.1}
    content["params"] = {
        "segmentation": {"min_duration_off": 0.0},
        "clustering": {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def save_plda(folder: Path, dimension: int, kept: int = 128) -> None:
    """A PLDA of community-1's size that tells `kept` of the encoder's dimensions apart as they are."""
    same = np.eye(kept)
    np.savez(
        folder / "xvec_transform.npz", mean1=np.zeros(dimension), mean2=np.zeros(kept), lda=np.eye(dimension, kept)
    )
    np.savez(folder / "plda.npz", mu=np.zeros(kept), tr=same, psi=np.linspace(4, 0.5, kept))


def detector() -> PyanNet:
    """The speech detector's network, in place of the one in the whisperx package. There is one size."""
    import torch

    from deployments.speech_detector.network import PyanNet

    torch.manual_seed(SEED)
    network = PyanNet()
    torch.nn.init.normal_(network.sincnet.filters, std=SPREAD)
    return network.eval()
