"""The report's tables and conclusions as Markdown."""

from collections.abc import Iterator, Mapping

from ssl_pipeline.formatting import markdown_line
from ssl_pipeline.report.data.report_data import ReportData
from ssl_pipeline.report.render.markdown_table import markdown_table
from ssl_pipeline.report.sections import conclusions
from ssl_pipeline.report.sections.promotion import promotion_section
from ssl_pipeline.report.sections.scaling import length_table, scaling_sentences
from ssl_pipeline.report.sections.task import TaskSection

SIGNIFICANCE_NOTE = (
    "“Better” and “worse” are used only where a confidence interval excludes zero; such "
    "differences are in bold. Intervals are over subjects and seeds, and not corrected for the "
    "number of comparisons."
)


def render_markdown_report(data: ReportData, sections: Mapping[str, TaskSection | None]) -> str:
    """The task sections of the HTML report as Markdown, without figures.

    Raises UserError where a record is damaged or of another format version.
    """
    shift = conclusions.shift_conclusion(data.results_of(shift=True))
    parts = [
        f"# {markdown_line(data.title or data.name)}",
        *filter(None, [data.outdated_warning]),
        conclusions.overall_conclusion(data.results_of(shift=False)),
        *([f"On scans unlike those of training: {shift}"] if shift else []),
        SIGNIFICANCE_NOTE,
    ]
    if data.promotion:
        promotion = promotion_section(data.promotion)
        parts += ["## May it replace the champion?", markdown_line(promotion.sentence)]
        parts += [*map(markdown_table, promotion.tables), *map(markdown_line, promotion.notes)]
    for task, config in data.tasks.items():
        section = sections[task]
        parts.append(f"## {markdown_line(config.title)}")
        parts += _task_parts(section) if section else ["This task has not been evaluated yet."]
    if data.scaling:
        parts.append("## What more pretraining has bought")
        parts += [*map(markdown_line, scaling_sentences(data.scaling))]
        parts.append(markdown_table(length_table(data.scaling)))
    return "\n\n".join(parts) + "\n"


def _task_parts(section: TaskSection) -> Iterator[str]:
    yield markdown_line(section.sentence)
    yield section.subjects
    for warning in section.warnings:
        yield f"**Not reliable as it stands.** {markdown_line(warning)}"
    tables = [section.scores, section.differences, *section.subgroups, section.per_class]
    tables += [section.places.distances] if section.places else []
    tables += [*section.subgroup_metrics, *filter(None, [section.costs])]
    notes = [*section.notes]
    if section.robustness:
        tables += section.robustness.tables
        notes += section.robustness.notes
    yield from map(markdown_table, tables)
    yield from map(markdown_line, dict.fromkeys(notes))
