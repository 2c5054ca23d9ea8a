"""Operations counted exactly, and peaks by name."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ssl_pipeline.monitoring.utilization import (
    convolution_seconds,
    datasheet_peak,
    mfu,
    peak_flops,
    step_flops,
)


def test_a_linear_layer_takes_two_operations_a_weight_and_pass():
    layer = torch.nn.Linear(7, 5, bias=False)
    rows = torch.randn(3, 7, requires_grad=True)
    assert step_flops(lambda: layer(rows)) == 2 * 3 * 7 * 5
    assert step_flops(lambda: layer(rows).sum().backward()) == 3 * 2 * 3 * 7 * 5


def test_attention_is_counted_on_any_device():
    query = torch.randn(2, 3, 16, 8, requires_grad=True)

    def step():
        scaled_dot_product_attention(query, query, query).sum().backward()

    assert step_flops(step) == 3 * 2 * 2 * (2 * 3 * 16 * 16 * 8)


def test_mfu_is_the_share_of_the_peak():
    assert mfu(2 * 10**12, 100.0, 1e15) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "precision", "rate"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H200", "fp32", 67e12),
        ("NVIDIA GH200 480GB", "bf16", 989e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("Tesla V100-SXM2-16GB", "bf16", 125e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("NVIDIA L4", "fp32", 30.3e12),
    ],
)
def test_known_cards_have_the_peak_of_their_data_sheet(name, precision, rate):
    assert datasheet_peak(name, precision) == rate


@pytest.mark.parametrize(
    "name",
    ["NVIDIA RTX A1000", "NVIDIA RTX A4000", "NVIDIA T400", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"],
)
def test_cards_with_like_names_and_slices_of_cards_have_none(name):
    assert datasheet_peak(name, "bf16") is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cpu_is_timed(precision):
    assert 1e6 < peak_flops("cpu", precision) < 1e15
    assert 1e-7 < convolution_seconds(4, precision, "cpu") < 10
