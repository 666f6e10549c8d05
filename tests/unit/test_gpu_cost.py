"""The computed cost of a GPU's work: its counts are those of arithmetic that is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import gpu_cost
from tests.benchmarks.gpu_cost import Chip, Cost, counted

CHIP = Chip(name="one of each", half_flops=4e3, full_flops=1e3, bytes_per_s=1e3)


def test_a_matrix_product_is_counted_with_its_bytes():
    with torch.device("meta"):
        layer = nn.Linear(30, 40, bias=False)
    with counted() as cost:
        layer(torch.empty(20, 30))
    assert cost.flops == 2 * 20 * 30 * 40
    assert cost.bytes == 4 * (20 * 30 + 30 * 40 + 20 * 40)


def test_attention_counts_as_its_two_products():
    query, key = torch.rand(2, 4, 7, 16), torch.rand(2, 4, 50, 16)
    with FlopCounterMode(display=False) as products:
        torch.softmax(query @ key.transpose(-1, -2), -1) @ key
    with counted() as cost:
        nn.functional.scaled_dot_product_attention(query.to("meta"), key.to("meta"), key.to("meta"))
    assert cost.flops == products.get_total_flops()


def test_a_recurrent_layer_counts_its_products_and_waits_for_each_step():
    layer = nn.LSTM(60, 128, num_layers=2, bidirectional=True, batch_first=True)
    weights = sum(each.numel() for name, each in layer.named_parameters() if name.startswith("weight"))
    with counted() as cost:
        answer, _ = layer.to("meta")(torch.empty(3, 11, 60))
    assert answer.shape == (3, 11, 256)
    assert cost.flops == 2 * 3 * 11 * weights
    assert cost.steps == 2 * 11


def test_views_cost_nothing():
    with counted() as cost:
        torch.empty(3, 4).T.reshape(12)[None].expand(5, 12)
    assert [flops for flops, _, _ in cost.operations] == [0.0]  # the copy in the other order


@pytest.mark.parametrize(
    ("operation", "seconds"),
    [((1e3, 1.0, False), 2.0), ((1e3, 1.0, True), 0.5), ((1.0, 1e3, True), 2.0), ((0.0, 0.0, False), 6e-6)],
    ids=["arithmetic", "in half precision", "memory", "the start of a kernel"],
)
def test_the_slowest_limit_decides(operation, seconds):
    assert Cost(operations=[operation]).on(CHIP) == pytest.approx(seconds)
    assert Cost(operations=[operation], steps=10).on(CHIP) == pytest.approx(seconds + 10 * gpu_cost.STEP_S)


def test_a_smaller_batch_costs_less_and_two_calls_the_same():
    """The networks themselves: what is counted grows with the work, to the operation."""
    small, large, again = (gpu_cost.segmenting(windows) for windows in (2, 4, 4))
    assert large.flops == pytest.approx(2 * small.flops)
    assert large.operations == again.operations
    assert large.bytes < 2 * small.bytes


def test_a_lookup_reads_what_it_answers():
    with torch.device("meta"):
        words = nn.Embedding(50_000, 8)
        numbers = torch.zeros(3, dtype=torch.long)
    with counted() as cost:
        words(numbers)
    assert cost.bytes == 3 * 8 + 3 * 8 * 4


def test_a_written_token_reads_all_weights_and_all_that_is_kept():
    """The decoder's weights once, keys and values of each chunk's sound once, of each beam's text three times."""
    chunks, beams, width, layers = 2, 5, gpu_cost.LARGE.whisper_width, gpu_cost.LARGE.whisper_layers
    decoder = gpu_cost._whisper(encoder_layers=1).decoder
    weights = sum(each.numel() for each in decoder.parameters()) - decoder.embed_positions.weight.numel()
    unused = layers * 2 * width * width  # a sound's keys and values are there already
    sound = layers * 2 * chunks * 1500 * width
    texts = 3 * layers * 2 * chunks * beams * (gpu_cost.LARGE.tokens // 2) * width
    least = 2 * (weights - unused + sound + texts)
    assert least < gpu_cost.writing(chunks, beams).bytes < 1.15 * least


def test_the_encoder_costs_what_its_length_costs():
    """A window of 7 s has 350 positions: less than a quarter of the work of 30 s, as attention is quadratic."""
    short, long = gpu_cost.encoding(1, 7.0).flops, gpu_cost.encoding(1, 30.0).flops
    assert 0.20 < short / long < 7 / 30
