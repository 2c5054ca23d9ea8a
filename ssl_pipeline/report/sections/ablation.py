"""The table of an ablation in Markdown."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from ssl_pipeline.evaluation.ablation import find_row
from ssl_pipeline.evaluation.cells import BASELINE_METHOD, BASELINES
from ssl_pipeline.evaluation.metrics.metric import METRICS
from ssl_pipeline.evaluation.records import AblationResults, AblationTable
from ssl_pipeline.formatting import format_duration
from ssl_pipeline.report.data.results import method_title
from ssl_pipeline.report.render.markdown_table import markdown_table
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.report.sections.tables import difference_cell, format_mean


def render_ablation(results: AblationResults) -> str:
    """The ablation report: cost of each arm, and scores and differences for every task."""
    tables = results.tables
    parts = [
        f"# Ablation of {results.study}",
        _summary(results, tables[0]),
        markdown_table(_arm_table(results)),
    ]
    for name in dict.fromkeys(table.name for table in tables):
        parts += comparison_parts([table for table in tables if table.name == name])
    return "\n\n".join(parts) + "\n"


def comparison_parts(tables: Sequence[AblationTable]) -> Iterator[str]:
    """Tables that compare arms on one task, of all stages that evaluated it."""
    first = tables[0]
    yield f"## {first.task}"
    for warning in dict.fromkeys(table.warning for table in tables if table.warning):
        yield f"**{warning}**"
    yield markdown_table(_score_table(tables))
    yield markdown_table(_difference_table(tables))
    yield from dict.fromkeys(note for table in tables for note in table.notes)


def _summary(results: AblationResults, table: AblationTable) -> str:
    share = f"{100 * table.confidence:g} %"
    return (
        f"Every encoder was trained with {results.flops:.3g} operations, as torch's "
        f"FlopCounterMode counts them, and each arm {table.n_seeds} times. Scores are means over "
        f"these seeds, on subjects of the split {table.split}, with {share} confidence intervals "
        "over both subjects and seeds; differences are paired by both. Rows of few labelled "
        "subjects are means over draws of these too."
    )


def _arm_table(results: AblationResults) -> Table:
    rows = [
        (
            arm.name,
            f"{arm.steps:,}",
            f"{arm.step_flops:.3g}",
            format_duration(fmean(arm.seconds)),
            ", ".join(arm.diagnoses),
        )
        for arm in results.arms
    ]
    head = ("arm", "steps", "operations per step", "time per encoder", "diagnoses of its runs")
    return Table("What was trained", head, rows)


def _score_table(tables: Sequence[AblationTable]) -> Table:
    rows = {(r.arm, r.method, r.subjects): r for t in tables for r in t.rows}
    arms = list(dict.fromkeys(arm for arm, _, _ in rows))
    cells = [
        (
            method_title(method),
            budget_text(subjects, tables[0]),
            *(format_mean(find_row(rows, arm, method, subjects)) for arm in arms),
        )
        for method, subjects in dict.fromkeys(key[1:] for key in rows if key[1] != BASELINE_METHOD)
    ]
    caption = f"{METRICS[tables[0].metric].title}, {tables[0].n_test_subjects} subjects"
    return Table(caption, ("method", "labelled subjects", *arms), cells, text_columns=2)


def _difference_table(tables: Sequence[AblationTable]) -> Table:
    """Between arms, and from random weights; those from baselines are in the JSON results."""
    rows = {
        ((d.arm, d.against), d.method, d.subjects): d
        for table in tables
        for d in table.differences
        if d.against not in BASELINES
    }
    pairs = list(dict.fromkeys(pair for pair, _, _ in rows))
    cells = [
        (
            method_title(method),
            budget_text(subjects, tables[0]),
            *(difference_cell(rows.get((pair, method, subjects))) for pair in pairs),
        )
        for method, subjects in dict.fromkeys(key[1:] for key in rows)
    ]
    heads = (f"{arm} minus {against}" for arm, against in pairs)
    caption = "Differences of arms, paired by subject and seed; bold where an interval excludes 0"
    return Table(caption, ("method", "labelled subjects", *heads), cells, text_columns=2)


def budget_text(subjects: int, table: AblationTable) -> str:
    """A number of labelled subjects in words."""
    return str(subjects) if subjects else f"all ({table.n_train_subjects})"
