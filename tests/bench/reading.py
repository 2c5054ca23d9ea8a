"""From a store to a step with the real reader: how long the device waits for what it is to see."""

import random
import shutil
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from ssl_pipeline.flight.config import Flight
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.loop import Run
from ssl_pipeline.training.metrics import read
from stages.study import Study
from tests.bench import stored
from tests.bench.steps import Setting, objective
from tests.bench.table import Row

ROUNDS = 3
STEPS, LOGGED = 16, 4
STARVED = 0.95  # the least share of time that a GPU must not wait


def rows(study: Study, setting: Setting, readers: tuple[int, ...], folder: Path) -> Iterator[Row]:
    """Pairs a second and the share of waiting; runs take turns in an order that is drawn."""
    logged: dict[int, list[dict[str, float]]] = {number: [] for number in readers}
    alone: dict[int, list[float]] = {number: [] for number in readers}
    order = random.Random(0)
    for _ in range(ROUNDS):
        for number in order.sample(readers, len(readers)):
            logged[number] += _run(study, setting, number, folder / "run")
            alone[number].append(_read_alone(study, setting, number))
    shutil.rmtree(folder)
    on_gpu = torch.cuda.is_available()
    for number in readers:
        waits, rate = (
            statistics.median(row[name] for row in logged[number])
            for name in ("waiting", "pairs_per_s")
        )
        could = statistics.median(alone[number])
        yield Row(
            f"{setting.name}, store to step, {number} reading: the device waits",
            f"{waits:.1%} of the time",
            f"{rate:.0f} pairs/s; without a step it reads {could:.0f}",
            1 - waits if on_gpu else None,
            STARVED if on_gpu else None,
        )


def _run(study: Study, setting: Setting, readers: int, folder: Path) -> list[dict[str, float]]:
    """What a short run logs of its speed, less its first row, in which all is opened."""
    shutil.rmtree(folder, ignore_errors=True)
    training = Training(
        steps=STEPS, pairs=setting.pairs, readers=readers, log_steps=LOGGED, checkpoint_steps=STEPS
    )
    made = objective(setting, type(study.objective))
    sampler = stored.sampler(study, setting.views, setting.pairs)
    Run(folder, made, sampler, training, Flight()).train()
    return read(folder / "metrics.jsonl")[1:]


def _read_alone(study: Study, setting: Setting, readers: int) -> float:
    """Pairs a second where no step takes any time."""
    sampler = stored.sampler(study, setting.views, setting.pairs)
    sampler.batch(0)
    with ThreadPoolExecutor(readers) as pool:
        began = time.perf_counter()
        for _ in pool.map(sampler.batch, range(1, STEPS + 1)):
            pass
        return STEPS * setting.pairs / (time.perf_counter() - began)
