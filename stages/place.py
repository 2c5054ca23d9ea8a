"""Where a stage runs: here, or as a job of the cluster that a profile describes.

`--on slurm` names a folder of `workflows/profiles/` that has a `cluster.yaml`, or is the path of
such a file; the stages that it names run as jobs, all others here, and `--on local` runs all of
them here. On the node the job comes through the same door with the same words, less `--on`. A job
that SLURM calls COMPLETED is believed only where the stage's own record says so for the inputs that
it was submitted for; the two files that the rule declares are written here, from that record.
"""

from functools import partial
from pathlib import Path

from cluster import config
from cluster.config import Cluster
from cluster.slurm import drop_outer_variables
from ssl_pipeline.errors import UserError, nearest
from ssl_pipeline.evaluation.cells import WHOLE, Share
from ssl_pipeline.progress import say
from stages.contract import ON_RANKS, key_of, perform, settle
from stages.study import Study

HERE = "local"
PROFILES = Path("workflows/profiles")


def cluster_at(where: str) -> Cluster | None:
    """The cluster of a place; None for this machine. Raises UserError for a place not known."""
    if where == HERE:
        return None
    path = Path(where) if where.endswith((".yaml", ".yml")) else PROFILES / where / "cluster.yaml"
    if not path.is_file():
        known = [HERE, *(found.parent.name for found in PROFILES.glob("*/cluster.yaml"))]
        raise UserError(
            f"There is no {path} to tell of the cluster {where}: {nearest(where, known)}"
        )
    return config.load(path)


def run(
    name: str, study: Study, wildcards: dict[str, str], where: str, config: Path, share: Share
) -> int:
    """Run a stage, or a share of it, where it belongs; the door's exit code. Raises UserError."""
    cluster = cluster_at(where)
    asked = cluster.resources(name) if cluster else None
    if cluster is None or asked is None:
        perform(name, study, wildcards, share)
        return 0
    if share != WHOLE:
        raise UserError(f"{name} has an array for its shares on a cluster: leave share=... out.")
    drop_outer_variables()
    key = key_of(name, study, wildcards)
    done = settle(name, study, wildcards, key)
    if done is not None:
        say(f"{name}: nothing to do, {done}")
        return 0
    from cluster.launch import Task, launch

    full_name = study.called(name, wildcards)
    which = wildcards | ({"trial": study.trial} if study.trial else {})
    words = [name, "--config", str(config), *(f"{k}={v}" for k, v in which.items())]
    shares = range(1, asked.array + 1) if asked.array > 1 else ()
    code = launch(
        Task(
            name=full_name,
            folder=study.folder / "jobs" / full_name,
            out=study.stage_folder(name, wildcards),
            key=key[:16],
            work=partial(come_in, words),
            resources=asked,
            shares=tuple(partial(come_in, [*words, f"share={n}/{asked.array}"]) for n in shares),
            on_ranks=name in ON_RANKS,
            detach=cluster.on_interrupt == "detach",
        )
    )
    if code == 0 and settle(name, study, wildcards, key, just_run=True) is None:
        raise UserError(f"What {name} reads has changed while its job ran: run the command again.")
    return code


def come_in(words: list[str]) -> int:
    """Through the door, on a node; its exit code."""
    from stages.__main__ import main

    return main(words)
