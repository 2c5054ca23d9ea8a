"""Everything that the report shows of one evaluated task."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_pipeline.formatting import format_count
from ssl_pipeline.report.data.report_data import ReportData
from ssl_pipeline.report.data.results import TaskResult, collect_notes, collect_warnings
from ssl_pipeline.report.render import figures
from ssl_pipeline.report.render.segmentation_overlay import segmentation_overlays
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.report.sections import conclusions, tables
from ssl_pipeline.report.sections.calibration import calibration_panels, model_calibration
from ssl_pipeline.report.sections.places import PlacesSection, places_section
from ssl_pipeline.report.sections.robustness import RobustnessSection, robustness_section
from ssl_pipeline.report.sections.subgroups import subgroup_metric_tables, subgroup_tables
from ssl_pipeline.report.sections.summary import shift_note
from ssl_pipeline.report.sections.test_access import describe_test_access


@dataclass(frozen=True)
class TaskSection:
    """Figures, tables and sentences of an evaluated task."""

    title: str
    sentence: str
    subjects: str
    warnings: Sequence[str]
    notes: Sequence[str]
    legend: Sequence[figures.LegendEntry]
    interval_note: str
    panels: Sequence[figures.Picture]
    scores: Table
    differences: Table
    subgroups: Sequence[Table]
    overlays: Sequence[figures.Picture]
    overlay_legend: Sequence[figures.LegendEntry]
    places: PlacesSection | None
    per_class: Table
    subgroup_metrics: Sequence[Table]
    calibration: Sequence[figures.Picture]
    costs: Table | None
    robustness: RobustnessSection | None


def task_sections(data: ReportData) -> dict[str, TaskSection | None]:
    """The section of every task, by name; None where it has not been evaluated.

    Raises UserError for a record that is damaged or of another format.
    """
    return {task: _task_section(data, task) for task in data.tasks}


def _task_section(data: ReportData, task: str) -> TaskSection | None:
    results = data.results_by_task[task]
    if not results:
        return None
    robustness = data.robustness_by_task.get(task)
    overlays, overlay_legend = _overlays(data, task, results)
    access = describe_test_access(data.accesses_by_task[task])
    model_note, model_panels = model_calibration(data.folder / "finetune" / task / "model")
    return TaskSection(
        title=data.tasks[task].title,
        sentence=conclusions.task_conclusion(results),
        subjects=" ".join(filter(None, [shift_note(data.tasks[task]), _subjects(results)])),
        warnings=collect_warnings(results),
        notes=[*collect_notes(results), *filter(None, [model_note, access])],
        legend=figures.legend(results),
        interval_note=figures.interval_note(results),
        panels=figures.score_panels(results),
        scores=tables.score_table(results),
        differences=tables.difference_table(results),
        subgroups=subgroup_tables(results),
        overlays=overlays,
        overlay_legend=overlay_legend,
        places=places_section(results, data.tasks[task], data.reader),
        per_class=tables.class_table(results),
        subgroup_metrics=subgroup_metric_tables(results),
        calibration=[*calibration_panels(results), *model_panels],
        costs=tables.cost_table(results),
        robustness=robustness_section(robustness) if robustness else None,
    )


def _subjects(results: Sequence[TaskResult]) -> str:
    """Which subjects a task was trained and evaluated on."""
    first = results[0].results
    return (
        f"Trained on {format_count(first.n_train_subjects, 'labelled subject')}, evaluated on "
        f"{format_count(first.n_test_subjects, 'subject')} of the split {first.split}."
    )


def _overlays(
    data: ReportData, task: str, results: Sequence[TaskResult]
) -> tuple[list[figures.Picture], list[figures.LegendEntry]]:
    if data.reader is None:
        return [], []
    return segmentation_overlays(results[-1], data.tasks[task], data.reader, data.label_file)
