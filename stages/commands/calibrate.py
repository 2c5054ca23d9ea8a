"""Calibrate a study's pretraining where it will run, and check that hardware.

`ssl-pipeline calibrate --config STUDY --on slurm` runs as pretraining does, with its resources, on
the study's own volumes: first the pace of its steps on all ranks, then checks on the first one. The
record is what `estimate` goes by.
"""

import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cluster.slurm import drop_outer_variables
from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_bytes, format_count
from ssl_pipeline.io.records import read_record, write_record
from ssl_pipeline.objectives.cost import training_cost
from ssl_pipeline.progress import info, print_table
from ssl_pipeline.provenance import peak_memory_gib
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training.calibration import Pace, TrainingCalibration
from ssl_pipeline.training.ranks import RankInfo
from stages.core import layout
from stages.core.dispatch import load_cluster
from stages.core.locks import stage_lock
from stages.core.ownership import claim_output
from stages.core.planning import require_plan
from stages.core.pretraining_runs import read_cohort
from stages.core.process import run_process
from stages.core.records import manifest_hash
from stages.core.study import Study
from stages.core.study_file import load_study
from stages.core.training_rate import rate_hash
from stages.trainer import build_measured_trainer, build_sampler

if TYPE_CHECKING:
    from ssl_pipeline.training.loop import Trainer
    from ssl_pipeline.views.sampler import Sampler

NAME = layout.CALIBRATE_FOLDER
PACE_SHARE, OPTION_SHARE = 0.5, 0.05  # of the seconds: of the pace, and of each option
READ_SHARE = 0.02
# Without it no product of matrices on a GPU is deterministic; read when CUDA begins.
CUBLAS_VARIABLE, CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


def calibrate(study_file: Path, run_on: str, seconds: float) -> None:
    """Calibrate here or as a job, record it, and print what was found.

    Raises UserError where a check fails, and where there are no volumes to train on.
    """
    study = load_study(study_file)
    if seconds <= 0:
        raise UserError(f"--seconds is {seconds:g}: give the seconds that it may take, such as 120")
    manifest_hash(study, "preprocess")
    claim_output(study)
    layout.calibrate_folder(study).mkdir(parents=True, exist_ok=True)
    profile = Path(run_on).stem
    cluster = load_cluster(run_on)
    asked = cluster.resources("pretrain") if cluster else None
    work = partial(measure_and_record, study_file, profile, seconds)
    if cluster and asked:
        from cluster.launch import StageJob, launch_job

        drop_outer_variables()
        code = launch_job(
            StageJob(
                name=NAME,
                folder=layout.job_folder(study, NAME),
                out=layout.calibrate_folder(study),
                key=rate_hash(study)[:16],
                work=partial(run_process, NAME, work),
                resources=asked,
                is_distributed=True,
                is_detached=cluster.on_interrupt == "detach",
            )
        )
        if code:
            raise UserError(f"its job ended with exit code {code}; its log says why.")
    else:
        work()
    if RankInfo.from_environment().is_first:
        report_calibration(study, profile)


def measure_and_record(study_file: Path, profile: str, seconds: float) -> int:
    """Measure with all ranks of this run, and write the record; returns the exit code 0."""
    os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_WORKSPACE)
    study, world = load_study(study_file), RankInfo.from_environment()
    require_plan(study)
    if not world.is_first:
        measure(study, profile, seconds, world)
        return 0
    folder = layout.calibrate_folder(study)
    with stage_lock(folder, NAME), _emptied(folder / layout.MEASURED_FOLDER):
        made = measure(study, profile, seconds, world)
        if made:
            write_record(layout.calibration_file(study, profile), made)
    return 0


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """A folder that is not there at the start, whoever was killed before, nor at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(
    study: Study, profile: str, seconds: float, world: RankInfo
) -> TrainingCalibration | None:
    """The calibration of a study here, in about so many seconds; None but on the first rank."""
    from ssl_pipeline.training.hardware_check import check_hardware
    from ssl_pipeline.training.pace import measure_pace

    catalog, folder = Catalog.read(layout.catalog_table(study)), layout.calibrate_folder(study)
    entries = read_cohort(study).entries(catalog)
    sampler = build_sampler(study, catalog, entries, study.training.batch_size)
    trainer = build_measured_trainer(study, sampler, folder / layout.MEASURED_FOLDER, world)
    pace = measure_pace(trainer, PACE_SHARE * seconds)
    if not world.is_first:
        return None
    measured = _calibration(study, profile, trainer, pace)
    # The checks are of one rank, with its share of a step's samples.
    share = build_sampler(study, catalog, entries, sampler.batch_size // world.world_size)
    speed = _read_samples_per_s(share, READ_SHARE * seconds)
    build = partial(_build_other, study, share)
    checks = []
    for check in check_hardware(
        build, study.training, folder / layout.MEASURED_FOLDER, OPTION_SHARE * seconds
    ):
        info(f"{NAME}: {check.name}: {check.finding}", error=not check.passed)
        checks.append(check)
    return measured.model_copy(update={"read_samples_per_s": speed, "checks": tuple(checks)})


def _build_other(
    study: Study, sampler: "Sampler", folder: Path, settings: Mapping[str, Any]
) -> "Trainer":
    """The trainer of the study with other settings of its section `training`, on one rank."""
    return build_measured_trainer(study, sampler, folder, RankInfo(), settings=settings)


def _calibration(study: Study, profile: str, trainer: "Trainer", pace: Pace) -> TrainingCalibration:
    """What was measured of the run, before anything else takes memory."""
    import torch

    compute = trainer.compute
    on_gpu = compute.device != "cpu"
    name = (
        torch.cuda.get_device_name()
        if on_gpu
        else f"{format_count(compute.threads, 'core')} of {platform.node()}"
    )
    return TrainingCalibration(
        profile=profile,
        host=platform.node(),
        device=compute.device,
        device_name=name,
        precision=compute.precision,
        ranks=trainer.rank_info.world_size,
        threads=compute.threads,
        settings_hash=rate_hash(study),
        sample_flops=training_cost(study.objective, study.model, study.views).sample_flops,
        batch_size=study.training.batch_size,
        pace=pace,
        read_samples_per_s=0.0,
        memory_bytes=round(peak_memory_gib() * 2**30),
        gpu_memory_bytes=torch.cuda.max_memory_reserved() if on_gpu else 0,
        checks=(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _read_samples_per_s(sampler: "Sampler", seconds: float) -> float:
    """Samples a second that one thread reads and prepares, with no step beside it."""
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not steps:
        sampler.batch(steps)
        steps += 1
    return steps * sampler.batch_size / (time.perf_counter() - start)


def report_calibration(study: Study, profile: str) -> None:
    """Print the record. Raises UserError where a check has failed."""
    path = layout.calibration_file(study, profile)
    found = read_record(TrainingCalibration, path, f"`ssl-pipeline {NAME}` makes it again")
    print_table(calibration_table(found))
    failed = [check.name for check in found.checks if not check.passed]
    if failed:
        raise UserError(
            f"{found.device_name} on {found.host} fails {len(failed)} of {len(found.checks)} "
            f"checks ({'; '.join(failed)}): train elsewhere, or with another build of torch."
        )


def calibration_table(calibration: TrainingCalibration) -> Table:
    """The quantities and checks of a calibration."""
    table = Table(
        "measured",
        "",
        title=f"{calibration.device_name}, {format_count(calibration.ranks, 'rank')}",
        box=None,
    )
    pace = calibration.pace
    rows = {
        "samples a second": f"{calibration.samples_per_s:.3g} in {calibration.precision}",
        "waits for data": f"{pace.data_wait:.1%} of the time",
        "one thread reads": f"{calibration.read_samples_per_s:.3g} samples a second",
        "MFU": f"{pace.mfu:.1%}",
        "snapshot, checkpoint": f"{pace.snapshot_s:.2g} s, {pace.checkpoint_s:.2g} s",
        "memory": format_bytes(calibration.memory_bytes),
    }
    if calibration.gpu_memory_bytes:
        rows["GPU memory"] = format_bytes(calibration.gpu_memory_bytes)
    for name, value in rows.items():
        table.add_row(name, value)
    for check in calibration.checks:
        table.add_row(check.name, check.finding if check.passed else f"FAILED: {check.finding}")
    return table
