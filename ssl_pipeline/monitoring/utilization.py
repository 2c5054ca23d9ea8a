"""Model FLOPs utilization (MFU): counted operations of a step against the device's peak.

The fraction (model FLOPs utilisation, MFU; Chowdhery et al. 2022, arXiv:2204.02311, app. B) needs a
peak. Makers state one for GPUs; for a CPU, a slice of a GPU or a card that the table lacks, a large
matrix product is timed instead.
"""

import re
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import conv3d
from torch.utils.flop_counter import FlopCounterMode

# Words of a GPU's name, then dense operations a second in bf16 (fp16 where a card has no bf16) with
# fp32 sums, and in fp32 without TF32, as NVIDIA's data sheets state them. The first match counts.
# Cards for desktops have too many variants under one name to be listed.
DATASHEET_PEAKS: tuple[tuple[str, float, float], ...] = (
    ("B200", 2250e12, 75e12),
    ("H200 NVL", 835e12, 60e12),
    ("GH200", 989e12, 67e12),
    ("H200", 989e12, 67e12),
    ("H100 PCIe", 756e12, 51e12),
    ("H100 NVL", 835e12, 60e12),
    ("H100", 989e12, 67e12),
    ("A100", 312e12, 19.5e12),
    ("A40", 149.7e12, 37.4e12),
    ("A30", 165e12, 10.3e12),
    ("L40S", 362e12, 91.6e12),
    ("L40", 181e12, 90.5e12),
    ("L4", 121e12, 30.3e12),
    ("RTX 6000 Ada", 364.2e12, 91.1e12),
    ("RTX A6000", 154.8e12, 38.7e12),
    ("V100", 125e12, 15.7e12),
    ("T4", 65e12, 8.1e12),
)
MATMUL_SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matrices that are multiplied
REPEATS, MAX_SECONDS = 5, 0.5  # of what is timed
CHANNELS = 32  # of the convolution that is timed
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def step_flops(step: Callable[[], object], device: str = "cpu") -> int:
    """Operations of what `step` does, forward and backward; a product and a sum are two.

    Counted from the shapes of matrix products and convolutions, while `step` runs once. On a CPU
    attention is computed by plain products meanwhile, for torch counts none for its fused kernel.
    """
    plain = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
    with FlopCounterMode(display=False) as counter, plain:
        step()
    return int(counter.get_total_flops())


def mfu(flops: int, steps_per_s: float, peak: float) -> float:
    """Share of the peak that the model's operations take: flops a step x rate / peak."""
    return flops * steps_per_s / peak


def peak_flops(device: str, precision: str) -> float:
    """Operations a second that a device can do, stated by its maker or else timed.

    The device is "cpu", "cuda" or "cuda:1", the precision "fp32", "bf16" or "fp16".
    """
    kind = torch.device(device).type
    stated = (
        datasheet_peak(torch.cuda.get_device_name(device), precision) if kind == "cuda" else None
    )
    side = MATMUL_SIDE[kind]
    return stated or 2 * side**3 / matmul_seconds(side, precision, device)


def datasheet_peak(name: str, precision: str) -> float | None:
    """What NVIDIA states for a GPU of this name; None for others and for slices of one (MIG)."""
    for part, bf16, fp32 in DATASHEET_PEAKS:
        if re.search(rf"\b{part}\b", name) and "MIG" not in name:
            return fp32 if precision == "fp32" else bf16
    return None


def matmul_seconds(side: int, precision: str, device: str) -> float:
    """The best time of a product of two square matrices of `side`, or the first that is long."""
    matrix = torch.ones(side, side, dtype=DTYPES[precision], device=device)
    return _best_seconds(lambda: matrix @ matrix)


def convolution_seconds(side: int, precision: str, device: str) -> float:
    """The same of a convolution at the full resolution of a crop, channels last."""
    crop, weights = (
        torch.ones(shape, dtype=DTYPES[precision], device=device).to(
            memory_format=torch.channels_last_3d
        )
        for shape in ((1, CHANNELS, side, side, side), (CHANNELS, CHANNELS, 3, 3, 3))
    )
    return _best_seconds(lambda: conv3d(crop, weights, padding=1))


def _best_seconds(compute: Callable[[], Tensor]) -> float:
    """The best time of some repeats, or the first that is long."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = compute()
        _ = result[(0,) * result.ndim].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
        if best > MAX_SECONDS:  # what warms up is little of it
            break
    return best
