"""The report: one HTML file that tells what went in, what was learned and what it is worth.

Self-contained on purpose: it can be mailed, opened without a network and kept beside a paper.
Reading it takes no script. A part whose source is not there is left out with a sentence.
"""

import json
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ssl_pipeline.evaluation.data.label_maps import LabelFile
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation
from ssl_pipeline.export.manifest import BUNDLE_MANIFEST
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import read_json, write_text
from ssl_pipeline.report.data.results import (
    Row,
    TaskResult,
    collect_notes,
    collect_warnings,
    read_results,
)
from ssl_pipeline.report.render import figures
from ssl_pipeline.report.render.previews import volume_previews
from ssl_pipeline.report.render.segmentation_overlay import segmentation_overlays
from ssl_pipeline.report.render.templates import template_environment
from ssl_pipeline.report.sections import conclusions, dataset, pretraining, provenance, tables
from ssl_pipeline.report.sections.calibration import calibration_panels
from ssl_pipeline.report.sections.limitations import limitations
from ssl_pipeline.report.sections.robustness import read_robustness, robustness_section
from ssl_pipeline.report.sections.subgroups import subgroup_metric_tables, subgroup_tables
from ssl_pipeline.report.sections.test_access import describe_test_access
from ssl_pipeline.report.sections.training_health import training_health
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.volumes.inventory import Inventory


@dataclass(frozen=True)
class ReportData:
    """A study, as the report needs it."""

    folder: Path  # where its stages wrote
    name: str
    title: str
    tasks: Mapping[str, TaskConfig]
    config: Mapping[str, Any]  # the study, with every default, less what says where scans lie
    label_file: LabelFile
    encoder: Path | None  # the bundle that was judged; None where another study trained it

    @cached_property
    def catalog(self) -> Catalog | None:
        """The stored volumes; None where preprocessing has not run."""
        path = self.folder / "preprocess" / "catalog.parquet"
        return Catalog.read(path) if path.exists() else None

    @cached_property
    def reader(self) -> CropReader | None:
        """Reads the stored volumes; None where there are none."""
        if self.catalog is None:
            return None
        return CropReader(self.folder / "preprocess" / "volumes", self.catalog)

    @cached_property
    def results_by_task(self) -> dict[str, list[TaskResult]]:
        """What each task's encoders scored, by stage; nothing of a task that was not judged."""
        return read_results(self.folder, self.tasks)

    @cached_property
    def robustness_by_task(self) -> dict[str, Row]:
        """What they scored on worse scans, of the tasks that were tried so."""
        tried = self.tasks if self.config.get("robustness") is not None else ()
        return {task: own for task in tried if (own := read_robustness(self.folder, task))}


def write_report(data: ReportData, path: Path) -> None:
    """Write the report whole."""
    write_text(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The report as HTML. Raises UserError where a table is of another format version."""
    environment = template_environment()
    environment.filters |= {"quoted": json.dumps, "shell": shlex.quote}
    plainest = [figures.primary_method(own) for own in data.results_by_task.values() if own]
    records = provenance.read_provenance(data.folder)
    return environment.get_template("page.html").render(
        title=data.title or data.name,
        name=data.name,
        answer=conclusions.overall_conclusion(data.results_by_task),
        worth=figures.summary_figure(plainest),
        marks=figures.legend([judgement for judgement, _ in plainest]),
        limits=limitations(data.results_by_task, data.robustness_by_task, data.catalog),
        tasks=[_task_context(data, t) for t in data.tasks],
        learned=_pretraining_context(data),
        own=data.encoder is not None,
        went_in=_dataset_context(data),
        bundle=_bundle_path(data),
        modality=_main_modality(data),
        stages=provenance.stage_table(records),
        trained=provenance.training_table(records) if data.encoder else None,
        versions=provenance.version_table(records),
        licences=provenance.licence_table(records),
        config=yaml.safe_dump(dict(data.config), sort_keys=False, allow_unicode=True),
    )


def _task_context(data: ReportData, task: str) -> dict[str, Any]:
    config, judgements, worse = (
        data.tasks[task],
        data.results_by_task[task],
        data.robustness_by_task.get(task),
    )
    shown: dict[str, Any] = {"title": config.title, "kind": config.kind, "judged": bool(judgements)}
    if not judgements:
        return shown
    first = judgements[0].content
    pictures, marks = _overlay_context(data, config, judgements)
    return shown | {
        "sentence": conclusions.task_conclusion(judgements),
        "warnings": collect_warnings(judgements),
        "train": format_count(first["n_train_subjects"], "labelled subject"),
        "split": first["split"],
        "test": format_count(first["n_test_subjects"], "subject"),
        "notes": [
            *collect_notes(judgements),
            *filter(None, [describe_test_access(data.folder, task)]),
        ],
        "legend": figures.legend(judgements),
        "bars": figures.interval_note(judgements),
        "panels": figures.score_panels(judgements),
        "scores": tables.score_table(judgements),
        "differences": tables.difference_table(judgements),
        "reliability": calibration_panels(judgements),
        "per_class": tables.class_table(judgements),
        "costs": tables.cost_table(judgements),
        "groups": subgroup_tables(judgements),
        "groups_further": subgroup_metric_tables(judgements),
        "worse": robustness_section(worse) if worse else None,
        "overlays": pictures,
        "overlay_legend": marks,
    }


def _overlay_context(
    data: ReportData, config: TaskConfig, results: list[TaskResult]
) -> tuple[list[figures.Picture], list[figures.LegendEntry]]:
    if not isinstance(config, Segmentation) or data.reader is None:
        return [], []
    return segmentation_overlays(results[-1], config, data.reader, data.label_file)


def _pretraining_context(data: ReportData) -> dict[str, Any]:
    if data.encoder is None:
        return {"fared": None, "curves": [], "strips": [], "maps": []}
    pretrain = data.folder / "pretrain"
    arrays = pretraining.read_feature_pca(pretrain)
    return {
        "fared": training_health(pretrain),
        "curves": pretraining.training_curves(pretrain),
        "strips": pretraining.snapshot_strips(pretrain),
        "maps": pretraining.feature_maps(arrays, data.catalog),
    }


def _dataset_context(data: ReportData) -> dict[str, Any]:
    path = data.folder / "inventory" / "scans.parquet"
    shown: dict[str, Any] = {
        "summary": "",
        "tables": [],
        "details": [],
        "stored": "",
        "thumbnails": [],
    }
    if path.exists():
        inventory = Inventory.read(path)
        main = (
            dataset.scan_table,
            dataset.site_table,
            dataset.geometry_table,
            dataset.label_table,
            dataset.rejection_reason_table,
        )
        details = (dataset.rejected_scan_table, dataset.orphan_label_table, dataset.scan_note_table)
        shown["summary"] = dataset.inventory_summary(inventory)
        shown["tables"] = [table for make in main if (table := make(inventory))]
        shown["details"] = [table for make in details if (table := make(inventory))]
    failed = data.folder / "preprocess" / "failed.json"
    if failed.exists() and (table := dataset.preprocessing_failure_table(read_json(failed))):
        shown["details"].append(table)
    if data.catalog is not None and data.reader is not None:
        shown["stored"] = dataset.store_summary(data.catalog)
        shown["thumbnails"] = volume_previews(data.catalog, data.reader)
    return shown


def _main_modality(data: ReportData) -> str:
    """The modality of most stored volumes, for the snippet."""
    entries = data.catalog.entries if data.catalog else ()
    return statistics.mode([entry.modality for entry in entries] or ["CT"])


def _bundle_path(data: ReportData) -> str:
    """Where the encoder lies, as the snippet names it; empty where there is none."""
    if data.encoder is None:
        return "ENCODER"
    return str(data.encoder) if (data.encoder / BUNDLE_MANIFEST).exists() else ""
