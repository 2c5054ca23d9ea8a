"""Validation of a cluster file against what the stages declare.

`cluster` knows no stages. Which of them may be jobs, arrays, or several tasks and nodes is checked
here when the file is read: a job that waited a night in the queue is a bad place to learn of it.
"""

from pathlib import Path

from cluster.config import Cluster, JobResources
from ssl_pipeline.errors import UserError, suggest_name
from stages.core.stage import Stage, load_stage, may_be_job, stage_names


def check_cluster(cluster: Cluster, path: Path) -> None:
    """Raise UserError, one sentence for the first stage that asks for what it cannot use."""
    jobs = stage_names(may_be_job)
    for name in cluster.stages:
        if name not in jobs:
            raise UserError(f"{path}: stages.{name} is not known: {suggest_name(name, jobs)}")
    for name in filter(cluster.stages.__contains__, jobs):
        resources = cluster.resources(name)
        assert resources
        if mistake := _mistake(name, load_stage(name), resources):
            raise UserError(f"{path}: {mistake}.")


def _mistake(name: str, stage: Stage, resources: JobResources) -> str:
    """What a stage asks for and cannot use; empty where there is nothing."""
    if resources.array_size > 1 and not stage.SHARDED:
        sharded = " and ".join(stage_names(lambda other: other.SHARDED))
        asked = f"{name} asks for an array of {resources.array_size}"
        return f"{asked}: only {sharded} have cells to divide"
    if stage.DISTRIBUTED:
        return ""
    if resources.tasks_per_node > 1:
        distributed = " and ".join(stage_names(lambda other: other.DISTRIBUTED))
        return (
            f"{name} asks for {resources.tasks_per_node} tasks_per_node: only {distributed} runs "
            "as several tasks, give it 1 and more cpus"
        )
    if resources.nodes > 1 and not stage.USES_WORKERS:
        several = " and ".join(stage_names(lambda other: other.USES_WORKERS or other.DISTRIBUTED))
        return (
            f"{name} asks for {resources.nodes} nodes: only {several} use several, give it 1 and "
            "more cpus"
        )
    return ""
