"""Dispatch of a stage: run it here, or as a job of the cluster that a profile describes.

`--on slurm` names a folder of `workflows/profiles/` that has a `cluster.yaml`, or is the path of
such a file; the stages that it names run as jobs, all others here, and `--on local` runs all of
them here. A job runs `run_in_process` on its node. A job that SLURM calls COMPLETED counts only
where the stage's own record says so for the inputs that it was submitted for; the two files that
the rule declares are written here, from that record.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from cluster import config
from cluster.config import Cluster, JobResources
from cluster.slurm import drop_outer_variables
from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.evaluation.cells import UNSHARDED, CellShard
from ssl_pipeline.progress import info, log_to
from stages.core import layout
from stages.core.cluster_validation import check_cluster
from stages.core.locate import redact
from stages.core.process import exit_code_of, run_process
from stages.core.records import declare_if_complete, stage_key
from stages.core.runner import ROOT, run_stage
from stages.core.stage import load_stage
from stages.core.stage_request import StageRequest
from stages.core.stage_runs import StageRun

LOCAL = "local"
PROFILES = ROOT / "workflows/profiles"


def load_cluster(run_on: str) -> Cluster | None:
    """The cluster that `run_on` names; None for this machine. Raises UserError if it is unknown."""
    if run_on == LOCAL:
        return None
    path = (
        Path(run_on) if run_on.endswith((".yaml", ".yml")) else PROFILES / run_on / "cluster.yaml"
    )
    if not path.is_file():
        known = [LOCAL, *(found.parent.name for found in PROFILES.glob("*/cluster.yaml"))]
        raise UserError(
            f"There is no {path} that describes the cluster {run_on}: {suggest_name(run_on, known)}"
        )
    cluster = config.load_cluster_config(path)
    check_cluster(cluster, path)
    return cluster


def dispatch_stage(request: StageRequest, run_on: str) -> int:
    """Run a stage, or a shard of it, here or as a job; returns the exit code of the command.

    What goes wrong is reported without the paths of scans. Raises UserError where the study does
    not have such a stage.
    """
    stage_run = request.load()
    study, log = stage_run.study, layout.log_file(stage_run.study, stage_run.name)

    work = partial(_run_or_launch, request, stage_run, run_on)
    with log_to(log):
        return exit_code_of(request.stage, work, partial(redact, study), log)


def run_in_process(request: StageRequest) -> int:
    """Run a stage, or a shard of it, as all that a process of a job does; returns its exit code."""
    return run_process(request.stage, partial(dispatch_stage, request, LOCAL))


def _run_or_launch(request: StageRequest, stage_run: StageRun, run_on: str) -> int:
    cluster = load_cluster(run_on)
    asked = cluster.resources(request.stage) if cluster else None
    if cluster is None or asked is None:
        run_stage(stage_run.stage, stage_run.study, stage_run.wildcards, request.shard)
        return 0
    if request.shard != UNSHARDED:
        raise UserError(
            f"{request.stage} runs its shards as a job array on a cluster: leave shard=... out."
        )
    return _run_as_job(request, stage_run, asked, is_detached=cluster.on_interrupt == "detach")


def _run_as_job(
    request: StageRequest, stage_run: StageRun, asked: JobResources, *, is_detached: bool
) -> int:
    from cluster.launch import StageJob, launch_job

    name, study, wildcards = stage_run.stage, stage_run.study, stage_run.wildcards
    drop_outer_variables()
    key = stage_key(name, study, wildcards)
    done = declare_if_complete(name, study, wildcards, key)
    if done is not None:
        info(f"{name}: nothing to do, {done}")
        return 0
    code = launch_job(
        StageJob(
            name=stage_run.name,
            folder=layout.job_folder(study, stage_run.name),
            out=stage_run.out,
            key=key[:16],
            work=partial(run_in_process, request),
            resources=asked,
            shards=tuple(
                partial(run_in_process, part) for part in _shard_requests(request, asked.array_size)
            ),
            is_distributed=load_stage(name).DISTRIBUTED,
            is_detached=is_detached,
        )
    )
    if code == 0 and declare_if_complete(name, study, wildcards, key, just_run=True) is None:
        raise UserError(f"What {name} reads has changed while its job ran: run the command again.")
    return code


def _shard_requests(request: StageRequest, count: int) -> list[StageRequest]:
    """A request for each element of a job array; none where there is no array."""
    if count == 1:
        return []
    return [replace(request, shard=CellShard(number, count)) for number in range(1, count + 1)]
