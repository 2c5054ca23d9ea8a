"""Peak memory of a training step, in a process of its own: `python -m tests.bench.memory ours`."""

import subprocess
import sys
from pathlib import Path

import torch

from ssl_pipeline.training.config import Training
from ssl_pipeline.training.device import decide
from ssl_pipeline.training.world import World
from tests.bench import steps, stored

STEPS = 2  # the second has the optimizer's state


def peak_mib(name: str, setting: str, folder: Path) -> float:
    """Beyond what imports and crops hold: weights, gradients, optimizer, activations."""
    command = [sys.executable, "-m", "tests.bench.memory", name, setting, str(folder)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(said.splitlines()[-1])


def _measured(name: str, setting: steps.Setting, folder: Path) -> float:
    compute = decide(Training(precision="fp32", threads=1), World())
    blocks = stored.sampler(stored.prepared(folder), setting.views, setting.pairs).batch(0)
    ready = steps.cut_already(blocks, setting, compute)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kib("VmRSS")
    if name == "ours":
        step = steps.ours(steps.objective(setting), compute, ready)
    else:
        step = steps.peer(steps.Monai(setting), compute, ready)
    for _ in range(STEPS):
        step()
    if compute.device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return (_kib("VmHWM") - before) / 1024


def _kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    sizes = {each.name: each for each in (steps.SMALL, steps.VIT_B)}
    print(_measured(sys.argv[1], sizes[sys.argv[2]], Path(sys.argv[3])))
