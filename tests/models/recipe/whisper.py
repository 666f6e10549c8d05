"""A very small Whisper for training: transformers' own class, started so that it learns from five hours of speech.

Attention that has to find out where to look takes most of such a training. Here it starts as heads that look at fixed
distances: sinusoidal positions turn under a linear map, so queries and keys can be written that match `n` frames
apart. The network can unlearn all of it; its form is Whisper's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers import WhisperConfig, WhisperForConditionalGeneration

if TYPE_CHECKING:
    from torch import Tensor, nn

WIDTH, HEADS, LAYERS = 96, 4, 2
MEL_BANDS, POSITIONS = 80, 1500
ENCODER_OFFSETS = ((-5, -2, 2, 5), (-10, -4, 4, 10))
"""Frames (of 20 ms) away from itself at which each head of each encoder layer starts to look."""
NEXT_WORD_FRAMES = 12.0
SHARPNESS, RANDOM_SHARE, COPIED = 1.2, 0.3, 0.7
UNTRAINED_LOGIT = -30.0
"""Of tokens that are never trained: rows of zeros would take their share of the probability."""


def build(tokens: int) -> WhisperForConditionalGeneration:
    """Random weights by torch's seed, but for the heads that start at fixed distances."""
    config = WhisperConfig(
        vocab_size=tokens,
        num_mel_bins=MEL_BANDS,
        d_model=WIDTH,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=3 * WIDTH,
        decoder_ffn_dim=3 * WIDTH,
        max_source_positions=POSITIONS,
        max_target_positions=448,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
        suppress_tokens=None,
        begin_suppress_tokens=None,
        dropout=0.0,
        init_std=0.05,
    )
    model = WhisperForConditionalGeneration(config)
    _keep_one_channel_constant(model)
    with torch.no_grad():
        _look_at_fixed_distances(model)
    return model


def encode(model: WhisperForConditionalGeneration, mel: Tensor) -> Tensor:
    """`mel`: (batch, 80, frames), whatever their number. Returns (batch, frames / 2, width)."""
    encoder = model.model.encoder
    x = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(mel)))).transpose(1, 2)
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    for layer in encoder.layers:
        x = x + _attended(layer.self_attn, layer.self_attn_layer_norm(x), causal=False)
        x = x + layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(x))))
    return encoder.layer_norm(x)


def decode(model: WhisperForConditionalGeneration, encoded: Tensor, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits (batch, tokens, vocabulary), and each layer's cross-attention (batch, heads, tokens, frames)."""
    decoder = model.model.decoder
    attentions = []
    x = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[: tokens.shape[1]]
    for layer in decoder.layers:
        x = x + _attended(layer.self_attn, layer.self_attn_layer_norm(x), causal=True)
        cross = layer.encoder_attn
        query = _split(cross.q_proj(layer.encoder_attn_layer_norm(x)))
        key, value = _split(cross.k_proj(encoded)), _split(cross.v_proj(encoded))
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        attentions.append(weights)
        x = x + cross.out_proj(_merged(weights @ value))
        x = x + layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(x))))
    return decoder.layer_norm(x) @ decoder.embed_tokens.weight.T, attentions


def widened(model: WhisperForConditionalGeneration, tokens: int, numbers: Tensor) -> WhisperForConditionalGeneration:
    """The same with `tokens` tokens: the trained ones at `numbers`, all others as good as impossible."""
    weights = model.state_dict()
    rows = torch.zeros(tokens, WIDTH)
    rows[:, 0] = UNTRAINED_LOGIT  # the constant channel, see below
    rows[numbers] = weights["model.decoder.embed_tokens.weight"]
    wide = build(tokens)
    wide.load_state_dict(weights | {"model.decoder.embed_tokens.weight": rows, "proj_out.weight": rows})
    return wide


def _attended(attention: nn.Module, x: Tensor, *, causal: bool) -> Tensor:
    query, key, value = (_split(part(x)) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
    attended = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    return attention.out_proj(_merged(attended))


def _split(x: Tensor) -> Tensor:
    return x.view(x.shape[0], x.shape[1], HEADS, -1).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _keep_one_channel_constant(model: WhisperForConditionalGeneration) -> None:
    """Channel 0 of the decoder's output is 1 and stays it, so that a row of the vocabulary can ask for a logit."""
    norm = model.model.decoder.layer_norm
    for weights, value in ((norm.weight, 0.0), (norm.bias, 1.0)):
        weights.data[0] = value
        weights.register_hook(lambda gradient: torch.cat([gradient.new_zeros(1), gradient[1:]]))


def _look_at_fixed_distances(model: WhisperForConditionalGeneration) -> None:
    for layer, offsets in zip(model.model.encoder.layers, ENCODER_OFFSETS, strict=True):
        for head, offset in enumerate(offsets):
            _look(layer.self_attn, head, offset)
    first, last = (layer.encoder_attn for layer in model.model.decoder.layers)
    half = WIDTH // 2
    for i, wave in enumerate(_waves()):  # the first layer's head 0 copies the position that it finds
        for row, channel in ((2 * i, wave), (2 * i + 1, half + wave)):
            first.v_proj.weight[row, channel] += COPIED
            first.out_proj.weight[channel, row] += COPIED
    _look(last, 0, NEXT_WORD_FRAMES)


def _look(attention: nn.Module, head: int, offset: float) -> None:
    """`head` scores frames highest that lie `offset` after its own."""
    half, size = WIDTH // 2, WIDTH // HEADS
    query, key = attention.q_proj.weight, attention.k_proj.weight
    for projection in (query, key):
        projection[head * size : (head + 1) * size] *= RANDOM_SHARE
    rates = torch.exp(-torch.log(torch.tensor(10_000.0)) / (half - 1) * torch.arange(half))
    for i, wave in enumerate(_waves()):
        angle, row = rates[wave] * offset, head * size + 2 * i
        query[row, wave] += SHARPNESS * torch.cos(angle)
        query[row, half + wave] += SHARPNESS * torch.sin(angle)
        query[row + 1, half + wave] += SHARPNESS * torch.cos(angle)
        query[row + 1, wave] -= SHARPNESS * torch.sin(angle)
        key[row, wave] += SHARPNESS
        key[row + 1, half + wave] += SHARPNESS


def _waves() -> range:
    """Which of the sinusoids a head uses: every second one, from the fastest on."""
    return range(1, 1 + WIDTH // HEADS, 2)
