"""Peak memory of a training step, in a process of its own: `python -m tests.bench.memory ours`."""

import subprocess
import sys
from pathlib import Path

import torch

from ssl_pipeline.training.compute import select_compute
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.ranks import RankInfo
from tests.bench import benchmark_study, steps

STEPS = 2  # the second has the optimizer's state


def peak_mib(name: str, setting: str, folder: Path) -> float:
    """Beyond what imports and crops hold: weights, gradients, optimizer, activations."""
    command = [sys.executable, "-m", "tests.bench.memory", name, setting, str(folder)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(said.splitlines()[-1])


def _measured(name: str, setting: steps.StepSize, folder: Path) -> float:
    compute = select_compute(Training(precision="fp32", threads=1), RankInfo())
    blocks = benchmark_study.build_sampler(
        benchmark_study.prepare_study(folder), setting.views, setting.batch_size
    ).batch(0)
    ready = steps.prepare_batch(blocks, setting, compute)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = current_kib("VmRSS")
    if name == "ours":
        step = steps.our_step(steps.build_objective(setting), compute, ready)
    else:
        step = steps.peer_step(steps.MonaiMae(setting), compute, ready)
    for _ in range(STEPS):
        step()
    if compute.device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return (current_kib("VmHWM") - before) / 1024


def current_kib(name: str) -> int:
    """A size of this process, such as VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    sizes = {each.name: each for each in (steps.SMALL, steps.VIT_B)}
    print(_measured(sys.argv[1], sizes[sys.argv[2]], Path(sys.argv[3])))
