"""The report's tables as Markdown: to be read, sent and committed."""

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
    "Better and worse are said only where an interval excludes zero; such differences are in bold. "
    "Intervals are over subjects and seeds, and not corrected for the number of comparisons."
)


def render_markdown_report(data: ReportData) -> str:
    """All that the page says of the tasks, less its pictures.

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
    judgements = data.results_by_task[task]
    yield f"## {data.tasks[task].title}"
    if not judgements:
        yield "This task has not been judged yet."
        return
    first = judgements[0].content
    yield conclusions.task_conclusion(judgements)
    yield (
        f"{format_count(first['n_train_subjects'], 'labelled subject')} to learn from, "
        f"{format_count(first['n_test_subjects'], 'subject')} of the split {first['split']} scored."
    )
    for warning in collect_warnings(judgements):
        yield f"**Not to be trusted as it stands.** {warning}"
    shown = [
        tables.score_table(judgements),
        tables.difference_table(judgements),
        *subgroup_tables(judgements),
    ]
    shown += [tables.class_table(judgements), *subgroup_metric_tables(judgements)]
    shown += filter(None, [tables.cost_table(judgements)])
    said = collect_notes(judgements)
    if worse := data.robustness_by_task.get(task):
        shown += robustness_tables(worse)
        said += worse["notes"]
    yield from map(markdown_table, shown)
    yield from dict.fromkeys(filter(None, [*said, describe_test_access(data.folder, task)]))
