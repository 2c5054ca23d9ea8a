"""Device, precision, attention kernel and threads of a run, decided once.

The decision is stored in the checkpoint and in the provenance and kept on resume, so that a resumed
run rounds as the first part did, unless the study then names another device or number of threads:
that changes rounding alone, and the provenance has both. bf16 is measured and never assumed: one
processor is four times faster with it, another eight times slower.
"""

import ctypes
import os
from dataclasses import asdict, dataclass
from functools import cache

import torch
from torch import nn

from ssl_pipeline.environment import read_number
from ssl_pipeline.errors import UserError
from ssl_pipeline.monitoring.utilization import convolution_seconds, matmul_seconds
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.ranks import RankInfo

MIN_SPEEDUP = 1.3  # bf16 must be this much faster than fp32 to be worth its rounding
# What is timed; a GPU is not busy with less.
MATMUL_SIDE, CONVOLUTION_SIDE = {"cpu": 512, "cuda": 4096}, {"cpu": 32, "cuda": 128}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
MMAP_THRESHOLD_BYTES = 1 << 30  # what is larger is asked of the kernel each time


@dataclass(frozen=True)
class Compute:
    """Where and how a run computes."""

    device: str
    precision: str
    fused_attention: bool
    threads: int

    def apply(self, rank_info: RankInfo, model: nn.Module) -> None:
        """Set torch's threads, a model's attention kernel, and how memory or the GPU is used."""
        self.set_attention_kernel(model)
        torch.set_num_threads(self.threads)
        if self.device != "cpu":
            if not torch.cuda.is_available():
                raise UserError(
                    "This run began on a GPU, and torch sees none here: go on where there is one, "
                    "or set training.device to cpu to go on without one."
                )
            # A scheduler may show each rank its own GPU alone, which is then number 0.
            torch.cuda.set_device(rank_info.local_rank % torch.cuda.device_count())
        else:
            _keep_freed_memory()

    def set_attention_kernel(self, model: nn.Module) -> None:
        """Set the attention kernel of timm's blocks, which they choose when they are built."""
        for own in map(vars, model.modules()):
            if "fused_attn" in own:
                own["fused_attn"] = self.fused_attention

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        reduced = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        return torch.autocast(self.device, reduced, enabled=reduced is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """What keeps small gradients of fp16 above zero; does nothing in other precisions."""
        return torch.amp.GradScaler(self.device, enabled=self.precision == "fp16")

    def to_json(self) -> dict[str, str | bool | int]:
        """As checkpoint and provenance hold it."""
        return asdict(self)


def _keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one.

    It gives large blocks back, and the kernel then hands out the same pages anew, zeroed one by
    one: of a step of the tiny preset 7% in fp32, 14% in bf16. Where malloc is another's, nothing
    is done.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES):
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never


def select_compute(
    section: Training, rank_info: RankInfo, before: Compute | None = None
) -> Compute:
    """Choose from the settings and, for `auto`, from what this machine offers.

    What the settings leave open stays as it was `before`, in a run that is resumed. Raises
    UserError where they name a GPU and there is none.
    """
    cuda = torch.cuda.is_available()
    if section.device == "cuda" and not cuda:
        raise UserError(
            "training.device is cuda, but torch sees no GPU here: set it to auto or cpu, "
            "or install a torch build with CUDA."
        )
    device = "cuda" if cuda and section.device != "cpu" else "cpu"
    if before and section.device == "auto":
        device = before.device
    threads = section.threads or (before.threads if before else _thread_count(rank_info))
    return compute_on(device, before.precision if before else section.precision, threads)


@cache
def compute_on(device: str, precision: str, threads: int) -> Compute:
    """How to compute on a device; `auto` is what multiplies matrices fastest."""
    if precision == "auto":
        precision = fastest_precision(device, threads, is_convolutional=False)
    # On CPU the fused attention kernel is slow in bf16: plain matrix products are twice as fast.
    fused = device != "cpu" or precision == "fp32"
    return Compute(device, precision, fused, threads)


def _thread_count(rank_info: RankInfo) -> int:
    """The number of threads that a launcher allows this rank, else its share of the cores."""
    allowed = read_number("OMP_NUM_THREADS", 0, 0)
    return allowed or max(1, len(os.sched_getaffinity(0)) // rank_info.local_world_size)


@cache
def fastest_precision(device: str, threads: int, is_convolutional: bool) -> str:
    """The precision that networks compute in fastest on a device, measured once a process.

    A convolution decides for networks of convolutions, a product of matrices for others: hardware
    and libraries may speed up one alone. What is emulated is not timed, which would take seconds.
    """
    torch.set_num_threads(threads)
    reduced = reduced_precision(device)
    if not _computes_in(reduced, device):
        return "fp32"
    seconds, side = (
        (convolution_seconds, CONVOLUTION_SIDE[device])
        if is_convolutional
        else (matmul_seconds, MATMUL_SIDE[device])
    )
    speedup = seconds(side, "fp32", device) / seconds(side, reduced, device)
    return reduced if speedup >= MIN_SPEEDUP else "fp32"


def reduced_precision(device: str) -> str:
    """The precision of two bytes that a device is timed with: fp16 on GPUs without bf16."""
    return "bf16" if device == "cpu" or _computes_in("bf16", device) else "fp16"


def available_precision(precision: str, device: str) -> str:
    """A precision where a device computes in it, else fp32; nothing is measured."""
    return precision if _computes_in(precision, device) else "fp32"


def _computes_in(reduced: str, device: str) -> bool:
    """Whether a device need not emulate bf16 or fp16; a CPU with AVX2 alone emulates both."""
    if device == "cpu":
        return reduced == "bf16" and torch.backends.cpu.get_cpu_capability() != "AVX2"
    return reduced == "fp16" or (reduced == "bf16" and torch.cuda.is_bf16_supported(False))
