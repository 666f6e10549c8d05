"""What an hour of dense talk would cost on a GPU, computed from networks of production's sizes: nothing is measured.

    python -m tests.benchmarks.gpu_cost

Each network runs once on torch's meta device, which knows shapes and computes nothing. Of each operation there are the
floating-point operations (torch's own formulas) and the bytes that it reads and writes. An operation takes as long as
the slowest of three: its arithmetic, its memory traffic, and the start of a kernel (the roofline model: Williams,
Waterman and Patterson, CACM 2009). A recurrent layer takes as long as its steps, one after the other. Left out:
what the CPU does beside it (features, beams, search, clustering), which can run meanwhile, and texts that are written
again because they were doubted. Needs torch, transformers and pyannote.audio.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from deployments.diarizer.one_pass import BLOCK, MARGIN
from deployments.transcriber.passages import VOTERS
from deployments.transcriber.protocol import BRIEF_S
from tests.benchmarks.random_models import LARGE
from tests.benchmarks.report import say, table
from tests.benchmarks.scripted_talk import CHUNK_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUR_S: Final = 3600.0
SPOKEN: Final = 0.9
"""Of the hour: dense talk."""
KERNEL_S: Final = 6e-6
"""From the start of one kernel to that of the next, as torch starts them one by one."""
STEP_S: Final = 8e-6
"""One step of a recurrent layer (cuDNN), which waits for the one before."""
REACHED: Final = 0.5
"""Of the chip's limits that kernels reach; 0.4-0.7 is usual for such shapes."""
TRANSCRIBED, BEAMS = 8, 5
"""Chunks of a batch, and beams of each."""


FREE: Final = {getattr(torch.ops.aten, name) for name in ("detach", "empty", "empty_like", "new_empty", "_unsafe_view")}
"""Beside views: they move nothing."""
GATHERING: Final = {getattr(torch.ops.aten, name) for name in ("embedding", "index", "index_select")}
"""They read no more of their first tensor than they answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """A GPU's limits, as its maker tells them (dense, not sparse)."""

    name: str
    half_flops: float
    """Per second, float16 on tensor cores."""
    full_flops: float
    """Per second, float32 without tensor cores."""
    bytes_per_s: float


H100: Final = Chip(name="H100 SXM", half_flops=989e12, full_flops=67e12, bytes_per_s=3.35e12)
H200: Final = Chip(name="H200", half_flops=989e12, full_flops=67e12, bytes_per_s=4.8e12)


@dataclass(slots=True)
class Cost:
    """Sums over operations; `on` makes seconds of them."""

    operations: list[tuple[float, float, bool]] = field(default_factory=list)
    """Floating-point operations, bytes, and whether in float16."""
    steps: int = 0
    """Of recurrent layers, one after the other."""

    @property
    def flops(self) -> float:
        return sum(flops for flops, _, _ in self.operations)

    @property
    def bytes(self) -> float:
        return sum(moved for _, moved, _ in self.operations)

    def on(self, chip: Chip, *, kernel_s: float = KERNEL_S, step_s: float = STEP_S) -> float:
        """Seconds on `chip`; without starts and steps those in which others cannot use it."""
        seconds = self.steps * step_s
        for flops, moved, half in self.operations:
            arithmetic_s = flops / (chip.half_flops if half else chip.full_flops)
            seconds += max(arithmetic_s / REACHED, moved / chip.bytes_per_s / REACHED, kernel_s)
        return seconds


class Count(TorchDispatchMode):
    """While it is entered, every operation of torch is added to `cost`; those that only look at memory are not."""

    def __init__(self) -> None:
        super().__init__()
        self.cost = Cost()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = function(*args, **(kwargs or {}))
        if function.is_view or function.overloadpacket in FREE:
            return answer
        formula = flop_registry.get(function.overloadpacket)
        flops = float(formula(*args, **(kwargs or {}), out_val=answer)) if formula else 0.0
        read = [*_tensors(args), *_tensors(list((kwargs or {}).values()))]
        tensors = [*(read[1:] if function.overloadpacket in GATHERING else read), *_tensors([answer])]
        moved = float(sum(each.numel() * each.element_size() for each in tensors))
        half = any(each.dtype is torch.float16 for each in tensors)
        self.cost.operations.append((flops, moved, half))
        return answer


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for each in values:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, (list, tuple)):
            yield from _tensors(each)


@contextmanager
def counted() -> Iterator[Cost]:
    """Around calls of networks on the meta device: what they cost."""
    with Count() as count, ExitStack() as replaced:

        def recur(layer: nn.LSTM, sequence: torch.Tensor, _state: Any = None) -> Any:
            batch, length, width = sequence.shape
            both = 1 + layer.bidirectional
            for number in range(layer.num_layers):
                into = width if number == 0 else both * layer.hidden_size
                weights = both * 4 * layer.hidden_size * (into + layer.hidden_size)
                moved = 4.0 * (weights + batch * length * (into + both * layer.hidden_size))
                count.cost.operations.append((2.0 * batch * length * weights, moved, False))
            count.cost.steps += layer.num_layers * length  # both directions run side by side
            return sequence.new_empty(batch, length, both * layer.hidden_size), None

        def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
            read = query.numel() + key.numel() + value.numel() + query.numel()
            half = query.dtype is torch.float16
            flops = 4.0 * query.numel() * key.shape[-2]
            count.cost.operations.append((flops, float(read * query.element_size()), half))
            return torch.empty_like(query)

        replaced.enter_context(mock.patch.object(nn.LSTM, "forward", recur))  # one kernel on a GPU, not one per step
        replaced.enter_context(mock.patch.object(nn.functional, "scaled_dot_product_attention", attend))
        replaced.enter_context(torch.no_grad())
        replaced.enter_context(torch.device("meta"))
        yield count.cost


def encoding(chunks: int, seconds: float = CHUNK_S) -> Cost:
    """Whisper large-v3's encoder, for a batch of windows; shorter ones have fewer positions."""
    model = _whisper(decoder_layers=1).get_encoder()
    model.max_source_positions = model.config.max_source_positions = round(50 * seconds)
    with torch.device("meta"):
        model.embed_positions = nn.Embedding(model.max_source_positions, LARGE.whisper_width, dtype=torch.float16)
    with counted() as cost:
        model(torch.empty(chunks, LARGE.mels, round(100 * seconds), dtype=torch.float16))
    return cost


def beginning(chunks: int) -> Cost:
    """The decoder's first pass: the prompt, and keys and values of the sound for all later ones."""
    model = _whisper(encoder_layers=1)
    with torch.device("meta"):
        words = torch.zeros(chunks, 4, dtype=torch.long)
        heard = torch.empty(chunks, 1500, LARGE.whisper_width, dtype=torch.float16)
    with counted() as cost:
        model.decoder(input_ids=words, encoder_hidden_states=heard, use_cache=False)
    return cost


def writing(chunks: int, beams: int) -> Cost:
    """One token for each beam of each chunk, in the middle of a text, as a decoder that keeps keys and values.

    As in CTranslate2 the beams of a chunk read its sound's keys and values once, while each has its own text's, which
    are read and put into the beams' new order.
    """
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    model = _whisper(encoder_layers=1)
    width, heads, written = LARGE.whisper_width, LARGE.whisper_heads, LARGE.tokens // 2
    with torch.device("meta"):
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for layer in range(LARGE.whisper_layers):
            kept = torch.empty(chunks, heads, 1500, width // heads, dtype=torch.float16)
            cache.cross_attention_cache.update(kept, kept, layer)
            cache.is_updated[layer] = True
        heard = torch.empty(chunks, 1500, width, dtype=torch.float16)
        words = torch.zeros(chunks, beams, dtype=torch.long)
    with counted() as cost:
        answer = model.decoder(
            input_ids=words,
            encoder_hidden_states=heard,
            past_key_values=cache,
            use_cache=True,
            cache_position=torch.empty(beams, dtype=torch.long),
        )
        answer.last_hidden_state @ model.decoder.embed_tokens.weight.T
    texts = float(2 * chunks * beams * written * width * torch.float16.itemsize)
    for _ in range(LARGE.whisper_layers):  # read for the attention; read and written for the order
        cost.operations += [(4.0 * chunks * beams * written * width, texts, True), (0.0, 2 * texts, True)]
    return cost


def _whisper(*, encoder_layers: int = LARGE.whisper_layers, decoder_layers: int = LARGE.whisper_layers) -> Any:
    """Return the model on the device `meta`; of a half that is not looked at, one layer is enough."""
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        vocab_size=51866,
        num_mel_bins=LARGE.mels,
        d_model=LARGE.whisper_width,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=LARGE.whisper_heads,
        decoder_attention_heads=LARGE.whisper_heads,
        encoder_ffn_dim=4 * LARGE.whisper_width,
        decoder_ffn_dim=4 * LARGE.whisper_width,
        attn_implementation="sdpa",
    )
    with torch.device("meta"):
        return WhisperModel(config).half().eval()


def listening(chunks: int, seconds: float) -> Cost:
    """wav2vec2-large over chunks of so many seconds: the aligner; as a classifier of moods nearly the same."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config(
        vocab_size=32, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, **LARGE.wav2vec2
    )
    with torch.device("meta"):
        model = Wav2Vec2ForCTC(config).eval()
    with counted() as cost:
        model(torch.empty(chunks, round(seconds * 16_000)))
    return cost


def segmenting(windows: int) -> Cost:
    """community-1's segmentation network, over windows of 10 s."""
    from deployments.speech_detector.network import PyanNet

    with torch.device("meta"):
        model = PyanNet().eval()
    with counted() as cost:
        model(torch.empty(windows, 1, 160_000))
    return cost


def describing(batch: int, frames: int) -> Cost:
    """community-1's voice encoder up to its pooling, over so many features of 10 ms."""
    import deployments.diarizer.piecewise  # noqa: F401, I001 - imports pyannote without telemetry and warnings
    from pyannote.audio.models.embedding import WeSpeakerResNet34

    with torch.device("meta"):
        model = WeSpeakerResNet34().eval()
    with counted() as cost:
        model.resnet.forward_frames(torch.empty(batch, frames, 80))
    return cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A network's call, and how often an hour needs it; `ours`: by this server."""

    name: str
    call: Callable[[], Cost]
    calls: int
    ours: bool = True


def stages() -> list[Stage]:
    """What configs/gpu.yaml computes of an hour."""
    chunks = math.ceil(SPOKEN * HOUR_S / CHUNK_S)
    batches = math.ceil(chunks / TRANSCRIBED)
    glances = math.ceil(SPOKEN * HOUR_S / BRIEF_S / TRANSCRIBED)
    return [
        Stage(name="language: short windows", call=lambda: encoding(TRANSCRIBED, BRIEF_S), calls=glances),
        Stage(name="language: the chunks that vote", call=lambda: encoding(VOTERS), calls=1),
        Stage(name="transcription: encoder", call=lambda: encoding(TRANSCRIBED), calls=batches),
        Stage(name="transcription: prompt, the sound's keys", call=lambda: beginning(TRANSCRIBED), calls=batches),
        Stage(name="transcription: decoder", call=lambda: writing(TRANSCRIBED, BEAMS), calls=batches * LARGE.tokens),
        Stage(name="alignment", call=lambda: listening(8, CHUNK_S), calls=math.ceil(chunks / 8)),
        Stage(name="emotion", call=lambda: listening(60, 10.0), calls=math.ceil(SPOKEN * HOUR_S / 600)),
        Stage(name="diarization: segmentation", call=lambda: segmenting(32), calls=math.ceil(HOUR_S / 32)),
        Stage(
            name="diarization: voices, once over the sound",
            call=lambda: describing(7, BLOCK + 2 * MARGIN),
            calls=math.ceil(HOUR_S / 0.01 / BLOCK / 7),
        ),
        Stage(
            name="(voices as pyannote's own pipeline: each window, each of three speakers)",
            call=lambda: describing(32, 998),
            calls=math.ceil(3 * HOUR_S / 32),
            ours=False,
        ),
    ]


def main() -> None:
    rows, alone_s, busy_s = [], dict.fromkeys((H100, H200), 0.0), dict.fromkeys((H100, H200), 0.0)
    for stage in stages():
        cost = stage.call()
        seconds = {chip: stage.calls * cost.on(chip) for chip in alone_s}
        flops, moved = (f"{stage.calls * each / 1e12:.2f}" for each in (cost.flops, cost.bytes))
        cells = [stage.name, stage.calls, len(cost.operations), flops, moved]
        rows.append([*cells, *(f"{each:.1f}" for each in seconds.values())])
        for chip in alone_s if stage.ours else ():
            alone_s[chip] += seconds[chip]
            busy_s[chip] += stage.calls * cost.on(chip, kernel_s=0.0, step_s=0.0)
    say(f"Computed, not measured: an hour of talk, {SPOKEN:.0%} of it speech; {REACHED:.0%} of each limit reached.\n")
    names = [f"{chip.name}, s" for chip in alone_s]
    say(table(["stage", "calls", "kernels each", "TFLOP", "TB moved", *names], rows))
    for chip, in_turn_s in alone_s.items():
        say(
            f"\n{chip.name}: {in_turn_s:.0f} s if one stage follows the other. Where jobs overlap, so that the "
            f"starts of kernels cost nothing: {busy_s[chip]:.0f} s an hour, {HOUR_S / busy_s[chip]:.0f} times realtime."
        )


if __name__ == "__main__":
    main()
