"""Dispatch of a stage: run it here, or as a job of the cluster that a profile describes.

`--on slurm` names a folder of `workflows/profiles/` that has a `cluster.yaml`, or is the path of
such a file; the stages that it names run as jobs, all others here, and `--on local` runs all of
them here. On the node the job runs the same command with the same words, less `--on`. A job that
SLURM calls COMPLETED counts only where the stage's own record says so for the inputs that it was
submitted for; the two files that the rule declares are written here, from that record.
"""

from functools import partial
from pathlib import Path

from cluster import config
from cluster.config import Cluster
from cluster.slurm import drop_outer_variables
from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.evaluation.cells import UNSHARDED, CellShard
from ssl_pipeline.progress import info
from stages.core.runner import DISTRIBUTED_STAGES, declare_if_complete, run_stage, stage_key
from stages.core.study import Study

LOCAL = "local"
PROFILES = Path("workflows/profiles")


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
    return config.load_cluster_config(path)


def dispatch_stage(
    name: str,
    study: Study,
    wildcards: dict[str, str],
    run_on: str,
    study_file: Path,
    shard: CellShard,
) -> int:
    """Run a stage, or a shard of it, here or as a job; returns the exit code of the command.

    Raises UserError.
    """
    cluster = load_cluster(run_on)
    asked = cluster.resources(name) if cluster else None
    if cluster is None or asked is None:
        run_stage(name, study, wildcards, shard)
        return 0
    if shard != UNSHARDED:
        raise UserError(f"{name} runs its shards as a job array on a cluster: leave shard=... out.")
    drop_outer_variables()
    key = stage_key(name, study, wildcards)
    done = declare_if_complete(name, study, wildcards, key)
    if done is not None:
        info(f"{name}: nothing to do, {done}")
        return 0
    from cluster.launch import StageJob, launch_job

    full_name = study.run_name(name, wildcards)
    which = wildcards | ({"trial": study.trial} if study.trial else {})
    words = [name, "--config", str(study_file), *(f"{k}={v}" for k, v in which.items())]
    shards = range(1, asked.array_size + 1) if asked.array_size > 1 else ()
    code = launch_job(
        StageJob(
            name=full_name,
            folder=study.folder / "jobs" / full_name,
            out=study.stage_folder(name, wildcards),
            key=key[:16],
            work=partial(run_in_process, words),
            resources=asked,
            shards=tuple(
                partial(run_in_process, [*words, f"shard={n}/{asked.array_size}"]) for n in shards
            ),
            is_distributed=name in DISTRIBUTED_STAGES,
            is_detached=cluster.on_interrupt == "detach",
        )
    )
    if code == 0 and declare_if_complete(name, study, wildcards, key, just_run=True) is None:
        raise UserError(f"What {name} reads has changed while its job ran: run the command again.")
    return code


def run_in_process(argv: list[str]) -> int:
    """Run a command line in this process, on a node; returns its exit code."""
    from stages.cli import main

    return main(argv)
