"""The contract of a stage, and the registry of all stages in the order of the workflow.

A stage is one module of this package, registered by one line in `STAGES`. It declares in its own
file all that others ask of it, so nothing else in the code lists stages by a property of theirs.
The modules are loaded on demand: they import this one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast, runtime_checkable

from ssl_pipeline.evaluation.cells import CellShard
from stages.core.resources import DatasetSize, Hardware, ResourceEstimate
from stages.core.study import Study

STAGES = (  # in the order in which they run
    "download",
    "inventory",
    "inventory_page",
    "reviewed",
    "preprocess",
    "flop_budget",
    "pretrain",
    "probe",
    "finetune",
    "robustness",
    "promote",
    "ablate",
    "scaling",
    "report",
)


NO_WILDCARDS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class StageResult:
    """The result of a stage: its files, a sentence for the reader, and more for the provenance.

    `indexed_files` are files whose hashes one of `files` holds: of these only the size is kept.
    Where `n_failed` of its items failed, the stages after it go on, and it runs again the next time
    that it is asked for.
    """

    files: list[Path]
    summary: str
    provenance: dict[str, Any] = field(default_factory=dict)
    indexed_files: list[Path] = field(default_factory=list)
    n_failed: int = 0


@runtime_checkable
class Stage(Protocol):
    """What the module of a stage defines."""

    TITLE: str  # one line, for help and reports
    CONFIG_KEYS: tuple[str, ...]  # the settings whose change makes it run again
    DEPENDS_ON: tuple[str, ...]  # the stages whose files it reads
    VERSION: int  # raised by hand when its outputs change
    OUTPUTS: tuple[str, ...]  # patterns of all files in its folder
    WILDCARDS: tuple[str, ...]  # it runs once for each value of them: ("task",)
    USES_GPU: bool
    USES_WORKERS: bool  # Dask workers do its work, on several nodes if a job has them
    DISTRIBUTED: bool  # several ranks may run it
    SHARDED: bool  # it defines `run_shard`: the elements of a job array may share its cells
    PER_TRIAL: bool  # each trial has a run of it

    def is_needed(self, study: Study, **wildcards: str) -> bool:
        """Whether the study has anything for it to do."""

    def inputs(self, study: Study, **wildcards: str) -> dict[str, str]:
        """Content hashes of its inputs, by name; writes nothing."""

    def estimate_resources(
        self, study: Study, dataset: DatasetSize, hardware: Hardware, **wildcards: str
    ) -> ResourceEstimate:
        """What it will take on this hardware; opens no more than tables and records."""

    def run(self, study: Study, out: Path, **wildcards: str) -> StageResult:
        """Do the work that is not done yet, into `out`."""


@runtime_checkable
class ShardedStage(Stage, Protocol):
    """A stage whose work consists of cells, which several processes may divide."""

    def run_shard(self, study: Study, out: Path, shard: CellShard, **wildcards: str) -> None:
        """Do a shard of the work that is not done yet."""


@runtime_checkable
class CheckedStage(Stage, Protocol):
    """A stage whose files are compared with all of the study whenever it is asked for."""

    def check_results(self, study: Study) -> None:
        """Raise UserError where its files show that later stages would fail."""


def load_stage(name: str) -> Stage:
    """The module of a stage."""
    return cast(Stage, import_module(f"stages.{name}"))


def load_stages() -> dict[str, Stage]:
    """All stages by name, in the order in which they run."""
    return {name: load_stage(name) for name in STAGES}


def stage_names(has_property: Callable[[Stage], bool]) -> tuple[str, ...]:
    """The names of the stages that have a property."""
    return tuple(name for name, stage in load_stages().items() if has_property(stage))


def may_be_job(stage: Stage) -> bool:
    """Whether a cluster may run a stage as a job: light ones run where they are asked for."""
    return stage.USES_GPU or stage.USES_WORKERS


def stage_command(study: Study, name: str, wildcards: Mapping[str, str] = NO_WILDCARDS) -> str:
    """The command that runs a stage by hand."""
    which = "".join(f" {key}={value}" for key, value in wildcards.items())
    which += f" trial={study.trial}" if study.trial and load_stage(name).PER_TRIAL else ""
    return f"python -m stages {name} --config STUDY{which}"
