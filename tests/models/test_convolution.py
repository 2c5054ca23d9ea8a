"""Convolutions: gradients in bf16 on a CPU."""

import pytest
import torch

from ssl_pipeline.models.convolution import Convolution

REPEATS = 8  # what freed memory holds is a matter of chance


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_hold_nothing_of_freed_memory(depth, stride):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 16, depth, 2, 2, generator=generator)
    layer = Convolution(16, 16, 3, stride, padding=1)
    expected = gradient(layer, maps, torch.float32)
    for _ in range(REPEATS):
        sizes = (layer.weight.numel(), 1000, 100_000, 500_000)
        freed = [torch.full((size,), float("nan")) for size in sizes]
        del freed
        found = gradient(layer, maps, torch.bfloat16)
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.2)


def gradient(layer, maps, precision):
    layer.weight.grad = None
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        outputs = layer(maps)
    outputs.float().square().sum().backward()
    return layer.weight.grad
