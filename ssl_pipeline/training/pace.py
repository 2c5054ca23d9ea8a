"""Pace of a run where it is measured: seconds of a step, a snapshot and a checkpoint.

A run of hours is measured before it starts, on its own volumes and ranks, and so is what `estimate`
goes by; both measure here. It is a real run that is thrown away, with the loader and every rank at
work: a step alone would miss what the device waits for.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.training import checkpoint
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.loop import Trainer
from ssl_pipeline.training.metrics_log import METRICS_FILE, LogRow, read_metrics

WARM_UP_STEPS = (
    3  # kernels are chosen and compiled, caches filled; the last one gives a first guess
)
MIN_STEPS = 3  # that are timed
OPEN_END = 10**9  # steps of a run that is measured: none of its intervals ends meanwhile


@dataclass(frozen=True)
class Pace:
    """Seconds of the parts of a run, on the slowest of its ranks."""

    step_s: float  # with its reading, or what of that the device waits for
    snapshot_s: float
    checkpoint_s: float
    data_wait: float  # share of the steps' time that the device waits for data
    mfu: float  # model FLOPs utilization of the first rank, as a fraction

    def seconds_per_step(self, training: Training, monitoring: Monitoring) -> float:
        """Seconds of a step with its share of snapshots and checkpoints."""
        snapshots = self.snapshot_s / monitoring.snapshot_every
        return self.step_s + snapshots + self.checkpoint_s / training.checkpoint_every


def unlimited(training: Training) -> Training:
    """The section of a run to be measured: the same steps, without an end."""
    changed = {"steps": OPEN_END, "log_every": OPEN_END, "checkpoint_every": OPEN_END}
    return training.model_copy(update={**changed, "continue_from": None})


def unobserved(monitoring: Monitoring) -> Monitoring:
    """The section of a run to be measured: no snapshot falls among its steps."""
    return monitoring.model_copy(update={"snapshot_every": OPEN_END, "stop_on": ()})


def measure_pace(trainer: Trainer, seconds: float) -> Pace:
    """Train for about so many seconds and time it; the trainer's folder is removed.

    The trainer has the sections that `unlimited` and `unobserved` give; all ranks measure at once
    and get the same pace.
    """
    with _own_folder(trainer), trainer.ranks.connect(trainer.compute.device):
        guess_s = _seconds_of_steps(trainer, WARM_UP_STEPS)
        count = max(MIN_STEPS, int(seconds / guess_s))
        step_s = _seconds_of_steps(trainer, count + 1)
        data_wait = read_metrics(trainer.folder / METRICS_FILE)[-1:]
        snapshot_s, row = _timed_snapshot(trainer, step_s)
        return Pace(
            step_s=step_s,
            snapshot_s=trainer.ranks.maximum(snapshot_s),
            checkpoint_s=trainer.ranks.maximum(_checkpoint_seconds(trainer)),
            data_wait=trainer.ranks.maximum(data_wait[0]["data_wait"] if data_wait else 0.0),
            mfu=trainer.ranks.maximum(row.get("mfu", 0.0)),
        )


@contextmanager
def _own_folder(trainer: Trainer) -> Iterator[None]:
    """Remove the folder at the end, on the first rank alone, which writes there."""
    try:
        yield
    finally:
        if trainer.rank_info.is_first:
            shutil.rmtree(trainer.folder, ignore_errors=True)


def _seconds_of_steps(trainer: Trainer, steps: int) -> float:
    """Seconds of a step, by all of these but the first, which waits for the loader to start."""
    first, last = trainer.step + 1, trainer.step + steps - 1
    times: dict[int, float] = {}

    def on_step(done: int) -> None:
        if done in (first, last):
            if trainer.compute.device != "cpu":
                torch.cuda.synchronize()  # the host is ahead of the device
            times[done] = time.perf_counter()

    trainer.train(steps, on_step=on_step)
    return trainer.ranks.maximum((times[last] - times[first]) / (last - first))


def _timed_snapshot(trainer: Trainer, step_s: float) -> tuple[float, LogRow]:
    """Seconds of a snapshot, and its row; the first rank alone takes them."""
    monitor = trainer.build_monitor()
    if monitor is None:
        return 0.0, {}
    start = time.perf_counter()
    rate = trainer.sampler.batch_size / step_s / trainer.rank_info.world_size
    row = monitor.take_snapshot(1.0, rate)
    return time.perf_counter() - start, row


def _checkpoint_seconds(trainer: Trainer) -> float:
    """Seconds of writing a checkpoint into the run's folder, which the first rank does."""
    if not trainer.rank_info.is_first:
        return 0.0
    state, start = trainer.state(), time.perf_counter()
    checkpoint.save_checkpoint(trainer.folder / "checkpoints", state, keep=1)
    return time.perf_counter() - start
