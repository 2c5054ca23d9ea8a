"""What a study will take before it runs, one line a stage, and how each figure is known.

The figures come from the stages' own `need`, from tables alone; where a stage has run before with
the same sections, its record has the better ones. Snakemake's `resources` are the same figures.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table

from cluster.config import Cluster, Resources
from ssl_pipeline.progress import console, show_whole
from stages.contract import former, stage
from stages.need import Known, Need, Place, known, measured
from stages.parts import Part, parts
from stages.study import Study

COLUMNS = ("stage", "disk", "files", "memory", "GPU memory", "hours", "wall time", "requeues")
ON_GPU = ("pretrain", "probe", "finetune", "robustness")
GPU_DEVICE = Path("/dev/nvidia0")


@dataclass(frozen=True)
class Estimate:
    """A stage's need at its place."""

    need: Need
    place: Place
    asked: Resources | None  # of SLURM; None where it runs without a job

    @property
    def wall_s(self) -> float:
        """Seconds from start to end, waits in the queue not counted."""
        jobs = self.asked.array if self.asked else 1
        return self.need.seconds.value / (self.place.gpus or self.place.cores) / jobs

    @property
    def resources(self) -> dict[str, int]:
        """As Snakemake's rules have them."""
        return {
            "disk_mb": math.ceil(self.need.disk.value / 1e6),
            "mem_mb": math.ceil(self.need.memory.value * self.place.processes / 1e6),
            "runtime": math.ceil(self.wall_s / 60),
        }


def estimate(
    name: str, study: Study, wildcards: dict[str, str], seen: Known, cluster: Cluster | None
) -> Estimate:
    """What one stage takes."""
    asked = cluster.resources(name) if cluster else None
    place = _place(name, study, asked, len(seen.scans))
    need = stage(name).need(study, seen, place, **wildcards)
    record = former(name, study, wildcards)
    if record and not place.gpus:
        before = record["provenance"]
        where = f"its run of {before['began'][:10]} on {before['host']}"
        need = replace(need, memory=measured(before["peak_memory_gib"] * 2**30, where))
        if not need.seconds.how.startswith("measured"):
            need = replace(need, seconds=measured(before["wall_s"] * place.cores, where))
    return Estimate(need, place, asked)


def show(study: Study, cluster: Cluster | None) -> None:
    """Print the table of all stages, and below it how each figure is known."""
    seen = known(study, headers=True)
    found = [
        (part, estimate(part.stage, part.study, part.wildcards, seen, cluster))
        for part in parts(study).values()
    ]
    figures = Table(*COLUMNS, title=f"{study.name} in {study.folder}", box=None, pad_edge=False)
    for column in figures.columns[1:]:
        column.justify = "right"
    alike = Counter(_title(part) for part, _ in found)
    for title, each in {_title(part): each for part, each in found}.items():
        number = alike[title]
        figures.add_row(title if number == 1 else f"{number} x {title}", *_row(each))
    needs = [each.need for _, each in found]
    disk, files = (sum(getattr(need, key).value for need in needs) for key in ("disk", "files"))
    hours = ", ".join(_hours([each for _, each in found]))
    figures.add_row("all", decimal(round(disk)), f"{files:.0f}", "", "", hours)
    reasons = Table("stage", "figure", "how it is known", box=None, pad_edge=False)
    reasons.add_row("", "scans", seen.how)
    told = dict.fromkeys((part.stage, tuple(_reasons(each.need))) for part, each in found)
    for name, lines in told:  # tasks that are known alike are told of once
        for number, (label, how) in enumerate(lines):
            reasons.add_row("" if number else name, label, how)
    for table in (figures, reasons):
        show_whole(table)
        console.print()


def _title(part: Part) -> str:
    """Its name, but for the seed of a trial: the trials of one arm take the same."""
    return part.name.rpartition("-")[0] if part.study.trial else part.name


def _place(name: str, study: Study, asked: Resources | None, scans: int) -> Place:
    """Cores, processes and GPUs of a stage, here or as a job."""
    cores = asked.cpus * asked.tasks if asked else len(os.sched_getaffinity(0))
    if name == "preprocess":
        granted = study.dask.workers or cores
        if asked:
            granted = study.dask.fitting(asked.cpus, asked.mem_gb) * asked.nodes
        workers = min(granted, scans)
        return Place(workers, workers)
    if name not in ON_GPU:
        return Place(1)
    there = asked.gpus * asked.nodes if asked else int(GPU_DEVICE.exists())
    ranks = asked.tasks if asked else 1
    gpus = 0 if study.training.device == "cpu" else min(there, ranks)
    if name == "pretrain" and study.training.threads:
        cores = study.training.threads * ranks
    return Place(cores, ranks, gpus)


def _row(found: Estimate) -> Iterator[str]:
    need, place, asked = found.need, found.place, found.asked
    yield decimal(round(need.disk.value))
    yield f"{need.files.value:.0f}"
    each = decimal(round(need.memory.value))
    yield each if place.processes == 1 else f"{place.processes} x {each}"
    yield decimal(round(need.gpu_memory.value)) if need.gpu_memory else ""
    yield from _hours([found])
    yield f"{math.ceil(found.wall_s / 60)} min"
    if asked is None:
        yield ""
        return
    requeues = asked.requeues_for(found.wall_s)
    yield str(requeues) if requeues <= asked.requeues else f"{requeues}, {asked.requeues} allowed"


def _hours(found: Sequence[Estimate]) -> Iterator[str]:
    """Those of cores, then those of GPUs, where there are any."""
    for unit in ("CPU", "GPU"):
        own = [e.need.seconds.value for e in found if bool(e.place.gpus) == (unit == "GPU")]
        if own:
            yield f"{sum(own) / 3600:.2g} {unit}-h"


def _reasons(need: Need) -> Iterator[tuple[str, str]]:
    """Figures that are known in the same way, and how."""
    labels = {"disk": "disk", "files": "files", "memory": "memory", "gpu_memory": "GPU memory"}
    figures = [(label, getattr(need, key)) for key, label in (labels | {"seconds": "time"}).items()]
    there = [(label, figure.how) for label, figure in figures if figure is not None]
    for how, group in groupby(there, key=lambda pair: pair[1]):
        yield ", ".join(label for label, _ in group), how
