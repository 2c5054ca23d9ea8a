"""Estimate disk, memory and time of a study before it runs: one line a stage, with its basis.

The quantities come from `estimate_resources` of the stages, from tables alone; where a stage has
run before with the same settings, its record has better ones. Snakemake's `resources` are the same,
but that a rule's `runtime` leaves room for other work on the machine.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from rich.table import Table

from cluster.config import Cluster, JobResources
from ssl_pipeline.formatting import format_bytes
from ssl_pipeline.progress import console, print_table
from stages.core.planning import plan_from_scans
from stages.core.records import up_to_date_record
from stages.core.resources import DatasetSize, Hardware, ResourceEstimate, dataset_size, measured
from stages.core.stage import load_stage
from stages.core.stage_runs import StageRun, stage_runs
from stages.core.study import Study
from stages.evaluation_check import check_scans
from stages.gate_plan import gate_plan

COLUMNS = ("stage", "disk", "files", "memory", "GPU memory", "hours", "wall time", "requeues")
GPU_DEVICE = Path("/dev/nvidia0")
RUNTIME_FACTOR = 3  # a stage takes this much longer where three share a machine


@dataclass(frozen=True)
class StageEstimate:
    """What a stage needs on its hardware."""

    resource_estimate: ResourceEstimate
    hardware: Hardware
    job_resources: JobResources | None  # of SLURM; None where it runs without a job

    @property
    def wall_s(self) -> float:
        """Seconds from start to end, waits in the queue not counted."""
        jobs = self.job_resources.array_size if self.job_resources else 1
        return (
            self.resource_estimate.seconds.value
            / (self.hardware.gpus or self.hardware.cores)
            / jobs
        )

    @property
    def snakemake_resources(self) -> dict[str, int]:
        """As Snakemake's rules have them."""
        return {
            "disk_mb": math.ceil(self.resource_estimate.disk.value / 1e6),
            "mem_mb": math.ceil(
                self.resource_estimate.memory.value * self.hardware.processes / 1e6
            ),
            "runtime": math.ceil(RUNTIME_FACTOR * self.wall_s / 60),
        }


def estimate_stage(
    name: str,
    study: Study,
    wildcards: dict[str, str],
    dataset: DatasetSize,
    cluster: Cluster | None,
) -> StageEstimate:
    """The estimate of one stage; what is `auto` and not planned yet, as these scans suggest it."""
    study = plan_from_scans(study, dataset.scans)
    asked = cluster.resources(name) if cluster else None
    place = _stage_hardware(name, study, asked, len(dataset.scans))
    need = load_stage(name).estimate_resources(study, dataset, place, **wildcards)
    record = up_to_date_record(name, study, wildcards)
    if record and not place.gpus:
        before = record.provenance
        where = f"its run of {before.started_at[:10]} on {before.host}"
        need = replace(need, memory=measured(before.peak_memory_gib * 2**30, where))
        if not need.seconds.basis.startswith("measured"):
            need = replace(need, seconds=measured(before.wall_s * place.cores, where))
    return StageEstimate(need, place, asked)


def print_estimates(study: Study, cluster: Cluster | None) -> None:
    """Print the table of all stages, and below it the basis of each quantity.

    Then raises UserError for what, as far as is known, these scans cannot serve.
    """
    dataset = dataset_size(study)
    found = [
        (part, estimate_stage(part.stage, part.study, part.wildcards, dataset, cluster))
        for part in stage_runs(study).values()
    ]
    quantities = Table(*COLUMNS, title=f"{study.name} in {study.folder}", box=None, pad_edge=False)
    for column in quantities.columns[1:]:
        column.justify = "right"
    titles = Counter(_title(part) for part, _ in found)
    for title, each in {_title(part): each for part, each in found}.items():
        number = titles[title]
        quantities.add_row(title if number == 1 else f"{number} x {title}", *_row(each))
    needs = [each.resource_estimate for _, each in found]
    disk, files = (sum(getattr(need, key).value for need in needs) for key in ("disk", "files"))
    hours = ", ".join(_hours([each for _, each in found]))
    quantities.add_row("all", format_bytes(disk), f"{files:.0f}", "", "", hours)
    reasons = Table("stage", "quantity", "basis", box=None, pad_edge=False)
    reasons.add_row("", "scans", dataset.basis)
    lines_of_stages = dict.fromkeys(
        (part.stage, tuple(_basis_lines(each.resource_estimate))) for part, each in found
    )
    for name, lines in lines_of_stages:  # tasks with equal lines are listed once
        for number, (label, how) in enumerate(lines):
            reasons.add_row("" if number else name, label, how)
    for table in (quantities, reasons):
        print_table(table)
        console.print()
    console.print(
        "Times are those of a machine that does nothing else; the rules' `runtime` is "
        f"{RUNTIME_FACTOR} times as long."
    )
    if dataset.is_known:
        for line in gate_plan(study, dataset):
            console.print(line)
        check_scans(study, dataset.scans)


def _title(stage_run: StageRun) -> str:
    """The name of a run without the seed of a trial: the trials of one arm cost the same."""
    return stage_run.name.rpartition("-")[0] if stage_run.study.trial else stage_run.name


def _stage_hardware(
    name: str, study: Study, job_resources: JobResources | None, n_scans: int
) -> Hardware:
    """Cores, processes and GPUs that a stage gets, here or as a job."""
    cores = (
        job_resources.cpus * job_resources.tasks if job_resources else len(os.sched_getaffinity(0))
    )
    stage = load_stage(name)
    if stage.USES_WORKERS:
        granted = study.dask.workers or cores
        if job_resources:
            granted = (
                study.dask.workers_for(job_resources.cpus, job_resources.mem_gb)
                * job_resources.nodes
            )
        workers = min(granted, n_scans)
        return Hardware(workers, workers)
    if not stage.USES_GPU:
        return Hardware(1)
    there = job_resources.gpus * job_resources.nodes if job_resources else int(GPU_DEVICE.exists())
    ranks = job_resources.tasks if job_resources else 1
    gpus = 0 if study.training.device == "cpu" else min(there, ranks)
    if stage.DISTRIBUTED and study.training.threads:
        cores = study.training.threads * ranks
    return Hardware(cores, ranks, gpus)


def _row(estimate: StageEstimate) -> Iterator[str]:
    need, place, asked = estimate.resource_estimate, estimate.hardware, estimate.job_resources
    yield format_bytes(need.disk.value)
    yield f"{need.files.value:.0f}"
    each = format_bytes(need.memory.value)
    yield each if place.processes == 1 else f"{place.processes} x {each}"
    yield format_bytes(need.gpu_memory.value) if need.gpu_memory else ""
    yield from _hours([estimate])
    yield f"{math.ceil(estimate.wall_s / 60)} min"
    if asked is None:
        yield ""
        return
    requeues = asked.expected_requeues(estimate.wall_s)
    yield (
        str(requeues)
        if requeues <= asked.max_requeues
        else f"{requeues}, {asked.max_requeues} allowed"
    )


def _hours(estimates: Sequence[StageEstimate]) -> Iterator[str]:
    """Hours of cores, then of GPUs, where there are any."""
    for unit in ("CPU", "GPU"):
        own = [
            e.resource_estimate.seconds.value
            for e in estimates
            if bool(e.hardware.gpus) == (unit == "GPU")
        ]
        if own:
            yield f"{sum(own) / 3600:.2g} {unit}-h"


def _basis_lines(resource_estimate: ResourceEstimate) -> Iterator[tuple[str, str]]:
    """Names of quantities that have the same basis, and the basis."""
    quantities = {
        "disk": resource_estimate.disk,
        "files": resource_estimate.files,
        "memory": resource_estimate.memory,
        "GPU memory": resource_estimate.gpu_memory,
        "time": resource_estimate.seconds,
    }
    known = [(label, quantity.basis) for label, quantity in quantities.items() if quantity]
    for basis, group in groupby(known, key=lambda pair: pair[1]):
        yield ", ".join(label for label, _ in group), basis
