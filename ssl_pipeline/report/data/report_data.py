"""All that the report shows of a study; each file of the stages is read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ssl_pipeline.evaluation.data.label_maps import LabelFile
from ssl_pipeline.evaluation.records import (
    RobustnessResults,
    ScalingResults,
    read_robustness,
    read_scaling,
)
from ssl_pipeline.evaluation.runner.access_log import ACCESS_LOG, TestAccess, read_test_accesses
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.io.records import read_json, read_record
from ssl_pipeline.provenance import PROVENANCE_FILE, ProvenanceRecord, read_provenance
from ssl_pipeline.registry.promotion import PROMOTION_FILE, PromotionRecord
from ssl_pipeline.report.data.results import TaskResult, read_task_results
from ssl_pipeline.review.agreement import SUMMARY_FILE, ReviewSummary
from ssl_pipeline.store.catalog import CATALOG_FILE, FAILURES_FILE, Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training import snapshots
from ssl_pipeline.training.metrics_log import METRICS_FILE, LogRow, read_metrics
from ssl_pipeline.training.run_record import RunRecord, read_run_record
from ssl_pipeline.volumes.inventory import INVENTORY_FILE, Inventory

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class TrainingRun:
    """The run that trained the encoder, with its metrics and snapshot images."""

    record: RunRecord
    metrics: Sequence[LogRow]
    images: Sequence[tuple[int, Arrays]]  # by step


@dataclass(frozen=True)
class ReportData:
    """A study, as the report needs it."""

    folder: Path  # where its stages wrote
    name: str
    title: str
    tasks: Mapping[str, TaskConfig]
    config: Mapping[str, Any]  # the study with every default, without paths of scans
    label_file: LabelFile
    encoder: Path | None  # the evaluated bundle; None where another study trained it
    stages: tuple[str, ...]  # in the order in which they run
    label_changes: str = ""  # which labels have changed, in a sentence without a full stop
    outdated: tuple[str, ...] = ()  # runs of stages whose outputs do not belong to the others'

    @property
    def outdated_warning(self) -> str:
        """That parts of the page do not belong together; empty where all do."""
        if not self.outdated:
            return ""
        return (
            f"Out of date: {', '.join(self.outdated)}. Settings, code or scans have changed since, "
            "so these figures may not be of the same scans as the others: run the study again."
        )

    @cached_property
    def inventory(self) -> Inventory | None:
        """All scans; None where there is no inventory."""
        path = self.folder / "inventory" / INVENTORY_FILE
        return Inventory.read(path) if path.exists() else None

    @cached_property
    def review(self) -> ReviewSummary | None:
        """What is to be said of the readers; None where the study asked for no review."""
        path = self.folder / "reviewed" / SUMMARY_FILE
        if "review" not in self.config or self.config["review"] is None or not path.exists():
            return None
        return read_record(ReviewSummary, path, "run the stage reviewed again")

    @cached_property
    def promotion(self) -> PromotionRecord | None:
        """Whether the encoder replaced a champion; None where the study promotes nothing."""
        path = self.folder / "promote" / PROMOTION_FILE
        if self.config.get("promote") is None or not path.exists():
            return None
        return read_record(PromotionRecord, path, "run the stage promote again")

    @cached_property
    def failed_volumes(self) -> Mapping[str, str]:
        """Scans that could not be preprocessed, with the reason."""
        path = self.folder / "preprocess" / FAILURES_FILE
        remedy = "remove it, and run the stage preprocess again"
        return (
            read_json(TypeAdapter(dict[str, str]).validate_json, path, remedy)
            if path.exists()
            else {}
        )

    @cached_property
    def catalog(self) -> Catalog | None:
        """The stored volumes; None where preprocessing has not run."""
        path = self.folder / "preprocess" / CATALOG_FILE
        return Catalog.read(path) if path.exists() else None

    @cached_property
    def reader(self) -> CropReader | None:
        """Reads the stored volumes; None where there are none."""
        if self.catalog is None:
            return None
        return CropReader(self.folder / "preprocess" / "volumes", self.catalog)

    @cached_property
    def run(self) -> TrainingRun | None:
        """The run that trained the encoder; None where there is none, or it is another study's."""
        pretrain = self.folder / "pretrain"
        record = read_run_record(pretrain) if self.encoder else None
        if record is None:
            return None
        folder = pretrain / record.folder
        return TrainingRun(
            record, read_metrics(folder / METRICS_FILE), snapshots.read_images(folder)
        )

    @cached_property
    def feature_pca(self) -> Arrays:
        """Slices and feature maps of the encoder; empty where there are none."""
        return read_feature_pca(self.folder / "pretrain") if self.encoder else {}

    @cached_property
    def provenance(self) -> Mapping[str, ProvenanceRecord]:
        """The provenance of every stage, by `stage` or `stage task`."""
        paths = [
            path
            for stage in self.stages
            for path in sorted((self.folder / stage).glob(f"**/{PROVENANCE_FILE}"))
        ]
        names = (" ".join(path.parent.relative_to(self.folder).parts) for path in paths)
        return {name: read_provenance(path) for name, path in zip(names, paths, strict=True)}

    @cached_property
    def results_by_task(self) -> Mapping[str, Sequence[TaskResult]]:
        """Results of each task, by stage; empty for a task that was not evaluated."""
        stages = {name: task.evaluation_stages for name, task in self.tasks.items()}
        return read_task_results(self.folder, stages)

    def results_of(self, *, shift: bool) -> Mapping[str, Sequence[TaskResult]]:
        """Results of the tasks that are of shift, or of those that are not."""
        tasks = self.tasks.items()
        return {name: self.results_by_task[name] for name, task in tasks if task.is_shift == shift}

    @cached_property
    def robustness_by_task(self) -> Mapping[str, RobustnessResults]:
        """Results on corrupted scans, of the tasks that have any."""
        tasks = self.tasks if self.config.get("robustness") is not None else ()
        found = {task: read_robustness(self.folder / "robustness" / task) for task in tasks}
        return {task: results for task, results in found.items() if results}

    @cached_property
    def scaling(self) -> ScalingResults | None:
        """Encoders of several lengths of pretraining; None where none were compared."""
        is_asked = self.config.get("scaling") is not None
        return read_scaling(self.folder / "scaling") if is_asked else None

    @cached_property
    def accesses_by_task(self) -> Mapping[str, Sequence[Sequence[TestAccess]]]:
        """Test-set accesses of each task, one list a stage."""
        return {task: read_task_accesses(self.folder, task) for task in self.tasks}


def read_feature_pca(pretrain_folder: Path) -> Arrays:
    """The slices and feature maps of an encoder; none where there is no such file."""
    path = pretrain_folder / snapshots.FEATURE_PCA_FILE
    return snapshots.read_arrays(path) if path.exists() else {}


def read_task_accesses(folder: Path, task: str) -> list[Sequence[TestAccess]]:
    """Test-set accesses of a task below a study's folder, one list a stage."""
    paths = sorted(folder.glob(f"*/{task}/{ACCESS_LOG}"))
    return [read_test_accesses(path.parent) for path in paths]
