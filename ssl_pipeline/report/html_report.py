"""The HTML report of a study: dataset, pretraining, task results, robustness and provenance.

One self-contained file: it can be mailed, opened without a network and kept beside a paper.
Reading it takes no script. A section whose data is missing is replaced by a sentence.
"""

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from ssl_pipeline.export.manifest import BUNDLE_MANIFEST
from ssl_pipeline.report.data.report_data import ReportData
from ssl_pipeline.report.render import figures
from ssl_pipeline.report.render.previews import foreground_previews, volume_previews
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.report.render.templates import template_environment
from ssl_pipeline.report.sections import conclusions, dataset, pretraining, provenance, readers
from ssl_pipeline.report.sections.limitations import limitations
from ssl_pipeline.report.sections.promotion import promotion_section
from ssl_pipeline.report.sections.scaling import ScalingSection, scaling_section
from ssl_pipeline.report.sections.summary import task_summary
from ssl_pipeline.report.sections.task import TaskSection
from ssl_pipeline.report.sections.training_health import TrainingHealth, training_health


@dataclass(frozen=True)
class PretrainingSection:
    """Diagnosis, curves and images of the run that trained the encoder."""

    health: TrainingHealth | None
    masks: Sequence[figures.Picture]  # the foreground that crops were drawn from
    curves: Sequence[figures.Picture]
    strips: Sequence[figures.Picture]
    maps: Sequence[figures.Picture]
    table: Table | None
    scaling: ScalingSection | None


@dataclass(frozen=True)
class DatasetSection:
    """Tables of the scans, and previews of the stored volumes."""

    summary: str
    stored: str
    tables: Sequence[Table]
    details: Sequence[Table]
    previews: Sequence[figures.Picture]


def render_report(data: ReportData, sections: Mapping[str, TaskSection | None]) -> str:
    """The report with the sections of all tasks, as HTML.

    Raises UserError for a record that is damaged or of another format.
    """
    environment = template_environment()
    environment.filters |= {"quoted": json.dumps, "shell": shlex.quote}
    evaluated = sorted(
        ((data.tasks[name], results) for name, results in data.results_by_task.items() if results),
        key=lambda pair: pair[0].is_shift,
    )
    return environment.get_template("report.html").render(
        title=data.title or data.name,
        name=data.name,
        outdated=data.outdated_warning,
        conclusion=conclusions.overall_conclusion(data.results_of(shift=False)),
        shift_conclusion=conclusions.shift_conclusion(data.results_of(shift=True)),
        summaries=[task_summary(task, results) for task, results in evaluated],
        summary_legend=figures.legend([figures.primary_method(own)[0] for _, own in evaluated]),
        limitations=limitations(data.results_by_task, data.robustness_by_task, data.catalog),
        promotion=promotion_section(data.promotion) if data.promotion else None,
        tasks=[(config.title, sections[task]) for task, config in data.tasks.items()],
        pretraining=_pretraining_section(data),
        has_own_encoder=data.encoder is not None,
        dataset=_dataset_section(data),
        bundle=_bundle_path(data),
        modality=_main_modality(data),
        stages=provenance.stage_table(data.provenance),
        versions=provenance.version_table(data.provenance),
        licences=provenance.licence_table(data.provenance),
        config=yaml.safe_dump(dict(data.config), sort_keys=False, allow_unicode=True),
    )


def _pretraining_section(data: ReportData) -> PretrainingSection:
    masks = (
        foreground_previews(data.catalog, data.reader)
        if data.encoder and data.catalog and data.reader
        else []
    )
    return PretrainingSection(
        training_health(data),
        masks,
        pretraining.training_curves(data.run),
        pretraining.snapshot_strips(data.run),
        pretraining.feature_maps(data.feature_pca, data.catalog),
        provenance.training_table(data.provenance) if data.encoder else None,
        scaling_section(data.scaling) if data.scaling else None,
    )


def _dataset_section(data: ReportData) -> DatasetSection:
    failures = dataset.preprocessing_failure_table(data.failed_volumes)
    cut_labels = dataset.cut_label_table(data.catalog) if data.catalog else None
    tables = dataset.inventory_tables(data.inventory) if data.inventory else []
    tables += readers.reader_tables(data.review) if data.review else []
    details = dataset.detail_tables(data.inventory) if data.inventory else []
    previews = volume_previews(data.catalog, data.reader) if data.catalog and data.reader else []
    return DatasetSection(
        dataset.inventory_summary(data.inventory, data.label_changes) if data.inventory else "",
        dataset.store_summary(data.catalog) if data.catalog else "",
        tables,
        [*details, *filter(None, [failures, cut_labels])],
        previews,
    )


def _main_modality(data: ReportData) -> str:
    """The modality of most stored volumes, for the snippet."""
    entries = data.catalog.entries if data.catalog else ()
    return statistics.mode([entry.modality for entry in entries] or ["CT"])


def _bundle_path(data: ReportData) -> str:
    """Where the encoder lies, as the snippet names it; empty where there is none."""
    if data.encoder is None:
        return "ENCODER"
    return str(data.encoder) if (data.encoder / BUNDLE_MANIFEST).exists() else ""
