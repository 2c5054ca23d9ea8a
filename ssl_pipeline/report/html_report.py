"""The HTML report of a study: dataset, pretraining, task results, robustness and provenance.

One self-contained file: it can be mailed, opened without a network and kept beside a paper.
Reading it takes no script. A section whose data is missing is replaced by a sentence.
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
    config: Mapping[str, Any]  # the study with every default, without paths of scans
    label_file: LabelFile
    encoder: Path | None  # the evaluated bundle; None where another study trained it

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
        """Results of each task, by stage; empty for a task that was not evaluated."""
        return read_results(self.folder, self.tasks)

    @cached_property
    def robustness_by_task(self) -> dict[str, Row]:
        """Results on corrupted scans, of the tasks that have any."""
        tasks = self.tasks if self.config.get("robustness") is not None else ()
        return {task: rows for task in tasks if (rows := read_robustness(self.folder, task))}


def write_report(data: ReportData, path: Path) -> None:
    """Write the report whole."""
    write_text(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The report as HTML. Raises UserError where a table is of another format version."""
    environment = template_environment()
    environment.filters |= {"quoted": json.dumps, "shell": shlex.quote}
    primary = [figures.primary_method(r) for r in data.results_by_task.values() if r]
    records = provenance.read_provenance(data.folder)
    return environment.get_template("report.html").render(
        title=data.title or data.name,
        name=data.name,
        conclusion=conclusions.overall_conclusion(data.results_by_task),
        summary_figure=figures.summary_figure(primary),
        summary_legend=figures.legend([result for result, _ in primary]),
        limitations=limitations(data.results_by_task, data.robustness_by_task, data.catalog),
        tasks=[_task_context(data, t) for t in data.tasks],
        pretraining=_pretraining_context(data),
        has_own_encoder=data.encoder is not None,
        dataset=_dataset_context(data),
        bundle=_bundle_path(data),
        modality=_main_modality(data),
        stages=provenance.stage_table(records),
        training_table=provenance.training_table(records) if data.encoder else None,
        versions=provenance.version_table(records),
        licences=provenance.licence_table(records),
        config=yaml.safe_dump(dict(data.config), sort_keys=False, allow_unicode=True),
    )


def _task_context(data: ReportData, task: str) -> dict[str, Any]:
    config, results = data.tasks[task], data.results_by_task[task]
    robustness = data.robustness_by_task.get(task)
    context: dict[str, Any] = {"title": config.title, "kind": config.kind}
    context["is_evaluated"] = bool(results)
    if not results:
        return context
    first = results[0].content
    overlays, overlay_legend = _overlay_context(data, config, results)
    return context | {
        "sentence": conclusions.task_conclusion(results),
        "warnings": collect_warnings(results),
        "train": format_count(first["n_train_subjects"], "labelled subject"),
        "split": first["split"],
        "test": format_count(first["n_test_subjects"], "subject"),
        "notes": [
            *collect_notes(results),
            *filter(None, [describe_test_access(data.folder, task)]),
        ],
        "legend": figures.legend(results),
        "interval_note": figures.interval_note(results),
        "panels": figures.score_panels(results),
        "scores": tables.score_table(results),
        "differences": tables.difference_table(results),
        "calibration": calibration_panels(results),
        "per_class": tables.class_table(results),
        "costs": tables.cost_table(results),
        "subgroups": subgroup_tables(results),
        "subgroup_metrics": subgroup_metric_tables(results),
        "robustness": robustness_section(robustness) if robustness else None,
        "overlays": overlays,
        "overlay_legend": overlay_legend,
    }


def _overlay_context(
    data: ReportData, config: TaskConfig, results: list[TaskResult]
) -> tuple[list[figures.Picture], list[figures.LegendEntry]]:
    if not isinstance(config, Segmentation) or data.reader is None:
        return [], []
    return segmentation_overlays(results[-1], config, data.reader, data.label_file)


def _pretraining_context(data: ReportData) -> dict[str, Any]:
    if data.encoder is None:
        return {"health": None, "curves": [], "strips": [], "maps": []}
    pretrain = data.folder / "pretrain"
    arrays = pretraining.read_feature_pca(pretrain)
    return {
        "health": training_health(pretrain),
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
