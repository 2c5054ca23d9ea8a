"""Settings of a cluster: one file, `workflows/profiles/slurm/cluster.yaml`, and no other.

The stages that it names run as SLURM jobs, with their own requests over the `defaults`; all others
run where Snakemake runs. Mistakes are refused when the file is read, before anything is submitted:
a job that waited a night in the queue is a bad place to learn of a typo.
"""

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ssl_pipeline.config.loader import parse_section, read_mapping
from ssl_pipeline.config.section import Section

RESERVED_PARAMETERS = {  # of sbatch: they have a field here, or the launcher sets them itself
    "partition": "partition", "account": "account", "qos": "qos", "constraint": "constraint",
    "time": "time_min", "signal": "signal_before_end_s", "nodes": "nodes",
    "ntasks": "tasks_per_node",
    "ntasks-per-node": "tasks_per_node", "cpus-per-task": "cpus", "gpus-per-node": "gpus",
    "mem": "mem_gb", "requeue": "max_requeues", "job-name": "", "comment": "", "dependency": "",
    "output": "", "error": "", "open-mode": "", "array": "", "no-requeue": "", "export": "",
    "no-kill": "",
}  # fmt: skip


class JobResources(Section):
    """Resources that one stage requests from SLURM."""

    partition: str = Field("", description="partition; empty takes the cluster's own default")
    account: str = Field("", description="account to charge; empty takes your default")
    qos: str = Field("", description="quality of service; empty takes your default")
    constraint: str = Field("", description="features that a node must have, such as a100&nvme")
    time_min: int = Field(60, gt=0, description="time limit of one attempt in minutes")
    signal_before_end_s: int = Field(
        120, ge=10, description="seconds before the limit at which the stage writes its checkpoint"
    )
    max_requeues: int = Field(
        100, ge=0, description="how often a job that received the signal is requeued"
    )
    nodes: int = Field(
        1, ge=1, description="nodes; several for stages of several workers or ranks alone"
    )
    tasks_per_node: int = Field(1, ge=1, description="processes on a node, one a GPU as a rule")
    cpus: int = Field(1, ge=1, description="CPUs of one task")
    gpus: int = Field(0, ge=0, description="GPUs of one node")
    array_size: int = Field(
        1,
        ge=1,
        description="elements of one job array among which the cells of an evaluation are divided",
    )
    mem_gb: float = Field(8.0, gt=0, description="memory of one node in GB")
    setup: tuple[str, ...] = Field(
        (), description="lines of shell that run on the node first, such as `module load cuda`"
    )
    python: str = Field(
        "",
        description="Python on the node, such as $SLURM_TMPDIR/env/bin/python; empty takes the one "
        "that submits the job",
    )
    scratch_dir: str = Field(
        "",
        description="folder on a node's own disk, such as $SLURM_TMPDIR, to which stored volumes "
        "are copied before they are read, if there is room; empty reads them where they lie",
    )
    sbatch: dict[str, str | int | bool] = Field(
        {}, description="further parameters of sbatch, such as {mail-type: END}"
    )

    @field_validator("sbatch")
    @classmethod
    def _refuse_reserved(
        cls, parameters: dict[str, str | int | bool]
    ) -> dict[str, str | int | bool]:
        for name, value in parameters.items():
            if value in ("yes", "no", "on", "off"):
                raise ValueError(f"{name} is {value}: write true or false")
            field = RESERVED_PARAMETERS.get(name.lstrip("-").replace("_", "-"))
            if field is not None:
                instead = f"use {field}" if field else "the launcher sets it itself"
                raise ValueError(f"{name} is not taken here: {instead}")
        return {name.lstrip("-").replace("_", "-"): value for name, value in parameters.items()}

    @model_validator(mode="after")
    def _signal_fits(self) -> "JobResources":
        if self.signal_before_end_s >= self.time_min * 60:
            raise ValueError(
                f"signal_before_end_s is {self.signal_before_end_s}, and the time limit is only "
                f"{self.time_min} min: give a longer time_min or a shorter signal_before_end_s"
            )
        return self

    @property
    def tasks(self) -> int:
        """The number of processes."""
        return self.nodes * self.tasks_per_node

    def expected_requeues(self, seconds: float) -> int:
        """How often a job of so many seconds is requeued, stopped by each signal."""
        attempt = self.time_min * 60 - self.signal_before_end_s
        return max(0, math.ceil(seconds / attempt) - 1)


class Cluster(Section):
    """The settings of a cluster file."""

    on_interrupt: Literal["cancel", "detach"] = Field(
        "cancel",
        description="Ctrl-C has the jobs of this run write a checkpoint and ends them, or "
        "leaves them to run on",
    )
    defaults: JobResources = Field(JobResources(), description="what every stage asks for")
    stages: dict[str, JobResources] = Field(
        {}, description="the stages that run as jobs, and what each asks for beyond that"
    )

    def resources(self, stage: str) -> JobResources | None:
        """The resources that a stage requests; None where it runs without a job."""
        asked = self.stages.get(stage)
        if asked is None:
            return None
        both = (self.defaults, asked)
        return JobResources(
            **{k: v for part in both for k, v in part.model_dump(exclude_unset=True).items()}
        )


def load_cluster_config(path: Path) -> Cluster:
    """Read and check a cluster file. Raises UserError, one sentence for the first mistake."""
    return parse_section(Cluster, read_mapping(path), path)
