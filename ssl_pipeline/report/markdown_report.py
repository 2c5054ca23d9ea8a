"""The report's tables and conclusions as Markdown."""

from collections.abc import Iterator

from ssl_pipeline.formatting import format_count
from ssl_pipeline.report.data.results import collect_notes, collect_warnings
from ssl_pipeline.report.html_report import ReportData
from ssl_pipeline.report.render.markdown_table import markdown_table
from ssl_pipeline.report.sections import conclusions, tables
from ssl_pipeline.report.sections.robustness import robustness_tables
from ssl_pipeline.report.sections.subgroups import subgroup_metric_tables, subgroup_tables
from ssl_pipeline.report.sections.test_access import describe_test_access

SIGNIFICANCE_NOTE = (
    "“Better” and “worse” are used only where an interval excludes zero; such differences are in "
    "bold. Intervals are over subjects and seeds, and not corrected for the number of comparisons."
)


def render_markdown_report(data: ReportData) -> str:
    """The task sections of the HTML report as Markdown, without figures.

    Raises UserError where a table is of another format version.
    """
    parts = [
        f"# {data.title or data.name}",
        conclusions.overall_conclusion(data.results_by_task),
        SIGNIFICANCE_NOTE,
    ]
    for task in data.tasks:
        parts += _task_parts(data, task)
    return "\n\n".join(parts) + "\n"


def _task_parts(data: ReportData, task: str) -> Iterator[str]:
    results = data.results_by_task[task]
    yield f"## {data.tasks[task].title}"
    if not results:
        yield "This task has not been evaluated yet."
        return
    first = results[0].content
    yield conclusions.task_conclusion(results)
    yield (
        f"Trained on {format_count(first['n_train_subjects'], 'labelled subject')}, evaluated on "
        f"{format_count(first['n_test_subjects'], 'subject')} of the split {first['split']}."
    )
    for warning in collect_warnings(results):
        yield f"**Not reliable as it stands.** {warning}"
    shown = [
        tables.score_table(results),
        tables.difference_table(results),
        *subgroup_tables(results),
    ]
    shown += [tables.class_table(results), *subgroup_metric_tables(results)]
    shown += filter(None, [tables.cost_table(results)])
    notes = collect_notes(results)
    if robustness := data.robustness_by_task.get(task):
        shown += robustness_tables(robustness)
        notes += robustness["notes"]
    yield from map(markdown_table, shown)
    yield from dict.fromkeys(filter(None, [*notes, describe_test_access(data.folder, task)]))
