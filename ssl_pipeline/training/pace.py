"""Pace of a run where it is measured: seconds of a step, a snapshot and a checkpoint.

A run of hours is measured before it starts, on its own volumes and ranks, and so is what `estimate`
goes by; both measure here. It is a real run that is thrown away, with the loader and every rank at
work: a step alone would miss what the device waits for.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.progress import without_progress
from ssl_pipeline.training import checkpoint
from ssl_pipeline.training.calibration import Pace
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.loop import Trainer
from ssl_pipeline.training.metrics_log import METRICS_FILE, LogRow, read_metrics

WARM_UP_STEPS = 3  # in which kernels are chosen, code is compiled and caches are filled
MIN_STEPS = 3  # that are timed
OPEN_END = 10**9  # steps of a run that is measured: none of its intervals ends meanwhile


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
    with _temporary_folder(trainer), trainer.ranks.connect(trainer.compute.device):
        step_s = _timed_step(trainer, seconds)
        data_wait = read_metrics(trainer.folder / METRICS_FILE)[-1:]
        snapshot_s, row = _timed_snapshot(trainer, step_s)
        return Pace(
            step_s=step_s,
            snapshot_s=trainer.ranks.maximum(snapshot_s),
            checkpoint_s=trainer.ranks.maximum(_checkpoint_seconds(trainer)),
            data_wait=trainer.ranks.maximum(data_wait[0]["data_wait"] if data_wait else 0.0),
            mfu=trainer.ranks.maximum(row.get("mfu", 0.0)),
        )


def measure_step(trainer: Trainer, seconds: float) -> float:
    """Seconds of a step alone, as `measure_pace` has them; the trainer's folder is removed."""
    with _temporary_folder(trainer), trainer.ranks.connect(trainer.compute.device):
        return _timed_step(trainer, seconds)


def _timed_step(trainer: Trainer, seconds: float) -> float:
    """Seconds of a step, by as many as fit into these seconds after a few that warm up."""
    guess_s = _seconds_of_steps(trainer, WARM_UP_STEPS)
    return _seconds_of_steps(trainer, max(MIN_STEPS, int(seconds / guess_s)) + 1)


@contextmanager
def _temporary_folder(trainer: Trainer) -> Iterator[None]:
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

    with without_progress():
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
