"""The first screen: for each task one figure, one sentence and the scores behind it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.report.data.results import TaskResult, collect_warnings, initialization_title
from ssl_pipeline.report.render.figures import Picture, primary_method, summary_panel
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.report.sections.conclusions import task_sentence
from ssl_pipeline.report.sections.tables import format_mean


@dataclass(frozen=True)
class TaskSummary:
    """What the first screen shows of a task."""

    title: str
    shift: str  # on which scans it is trained and scored; empty where these are equal
    sentence: str
    picture: Picture
    scores: Table
    warnings: Sequence[str]


def task_summary(task: Task, results: Sequence[TaskResult]) -> TaskSummary:
    """By the primary method, with the most labelled subjects."""
    result, method = primary_method(results)
    return TaskSummary(
        result.results.task,
        shift_note(task),
        task_sentence(result, method),
        summary_panel(result, method),
        _score_table(result, method),
        collect_warnings(results),
    )


def shift_note(task: Task) -> str:
    """On which scans a task of shift is trained, and on which it is scored; of others empty."""
    trained, scored = (
        " and ".join(f"{name} {' or '.join(values)}" for name, values in chosen.items())
        for chosen in (task.train_on, task.score_on)
    )
    if not task.is_shift:
        return ""
    return f"Shift: trained on {trained or 'all scans'}, scored on {scored or 'all scans'}."


def _score_table(result: TaskResult, method: str) -> Table:
    subjects = result.largest_budget(method)
    rows = [
        (initialization_title(init), format_mean(row))
        for init in result.initializations
        if (row := result.row(method, init, subjects))
    ]
    return Table("", ("initialization", result.metric.title), rows)
