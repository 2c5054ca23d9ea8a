"""From a store to a step with the real reader: how long the device waits for data."""

import random
import shutil
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.loop import RunSettings, Trainer
from ssl_pipeline.training.metrics_log import read_metrics
from stages.core.study import Study
from tests.bench import benchmark_study
from tests.bench.steps import StepSize, build_objective
from tests.bench.table import BenchmarkRow

ROUNDS = 3
STEPS, LOG_EVERY = 16, 4
MIN_BUSY_SHARE = 0.95  # the least share of time that a GPU must not wait


def rows(
    study: Study, setting: StepSize, thread_counts: tuple[int, ...], folder: Path
) -> Iterator[BenchmarkRow]:
    """Samples per second and the fraction of waiting; runs alternate in a random order."""
    logged: dict[int, list[dict[str, float]]] = {number: [] for number in thread_counts}
    alone: dict[int, list[float]] = {number: [] for number in thread_counts}
    order = random.Random(0)
    for _ in range(ROUNDS):
        for number in order.sample(thread_counts, len(thread_counts)):
            logged[number] += _run(study, setting, number, folder / "run")
            alone[number].append(_read_alone(study, setting, number))
    shutil.rmtree(folder)
    on_gpu = torch.cuda.is_available()
    for number in thread_counts:
        waits, rate = (
            statistics.median(row[name] for row in logged[number])
            for name in ("data_wait", "samples_per_s")
        )
        could = statistics.median(alone[number])
        yield BenchmarkRow(
            f"{setting.name}, store to step, {number} reading: the device waits",
            f"{waits:.1%} of the time",
            f"{rate:.0f} samples/s; without a step it reads {could:.0f}",
            1 - waits if on_gpu else None,
            MIN_BUSY_SHARE if on_gpu else None,
        )


def _run(
    study: Study, setting: StepSize, loader_threads: int, folder: Path
) -> list[dict[str, float]]:
    """What a short run logs of its speed, less its first row, in which all is opened."""
    shutil.rmtree(folder, ignore_errors=True)
    training = Training(
        steps=STEPS,
        batch_size=setting.batch_size,
        loader_threads=loader_threads,
        log_every=LOG_EVERY,
        checkpoint_every=STEPS,
    )
    made = build_objective(setting, type(study.objective))
    sampler = benchmark_study.build_sampler(study, setting.views, setting.batch_size)
    Trainer(folder, made, sampler, RunSettings(training, Monitoring())).train()
    return read_metrics(folder / "metrics.jsonl")[1:]


def _read_alone(study: Study, setting: StepSize, loader_threads: int) -> float:
    """Samples per second where no step takes any time."""
    sampler = benchmark_study.build_sampler(study, setting.views, setting.batch_size)
    sampler.batch(0)
    with ThreadPoolExecutor(loader_threads) as pool:
        began = time.perf_counter()
        for _ in pool.map(sampler.batch, range(1, STEPS + 1)):
            pass
        return STEPS * setting.batch_size / (time.perf_counter() - began)
