"""Scores by subgroup of test scans, and the gap between the best and the worst."""

from collections.abc import Callable, Mapping, Sequence

from ssl_pipeline.evaluation.metrics.metric import METRICS
from ssl_pipeline.evaluation.records import RowKey, ScoreRow
from ssl_pipeline.formatting import NO_VALUE, format_difference
from ssl_pipeline.report.data.results import TaskResult, initialization_title, method_title
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.report.sections.tables import format_estimate, format_mean


def subgroup_tables(results: Sequence[TaskResult]) -> list[Table]:
    """One table an attribute of which there are several values, with the most labelled subjects."""
    return [_gap_table(results, attribute) for attribute in _attributes(results)]


def subgroup_metric_tables(results: Sequence[TaskResult]) -> list[Table]:
    """The same for each other metric, without gaps."""
    rows = [row for each in results for row in each.results.rows]
    metrics = dict.fromkeys(metric for row in rows for metric in row.other_metrics)
    return [
        _metric_table(results, attribute, metric)
        for attribute in _attributes(results)
        for metric in metrics
    ]


def _attributes(results: Sequence[TaskResult]) -> list[str]:
    """Attributes by which there is more than one subgroup."""
    values: dict[str, set[str]] = {}
    for each in results:
        for subgroup in each.results.subgroups:
            values.setdefault(subgroup.attribute, set()).add(subgroup.value)
    return [attribute for attribute, found in values.items() if len(found) > 1]


def _gap_table(results: Sequence[TaskResult], attribute: str) -> Table:
    gaps = {
        gap.key: format_difference(gap.mean, gap.low, gap.high)
        for each in results
        for gap in each.results.gaps
        if gap.attribute == attribute
    }
    head, rows = _rows(results, attribute, format_mean)
    caption = (
        f"{results[0].metric.title} by {attribute} (test subjects), with the most labelled "
        "subjects; the gap is between the best and the worst group that has all classes, with a "
        "simultaneous confidence interval over all pairs"
    )
    cells = [(*row, gaps.get(key, NO_VALUE)) for key, row in rows.items()]
    return Table(caption, (*head, "gap"), cells, text_columns=2)


def _metric_table(results: Sequence[TaskResult], attribute: str, metric: str) -> Table:
    def format_metric(row: ScoreRow | None) -> str:
        found = row.other_metrics.get(metric) if row else None
        return format_estimate(found) if found else NO_VALUE

    head, rows = _rows(results, attribute, format_metric)
    title = METRICS[metric].title
    caption = f"{title} by {attribute} (test subjects), with the most labelled subjects"
    return Table(caption, head, list(rows.values()), text_columns=2)


def _rows(
    results: Sequence[TaskResult], attribute: str, format_row: Callable[[ScoreRow | None], str]
) -> tuple[tuple[str, ...], Mapping[RowKey, tuple[str, ...]]]:
    """The head and the rows of a table with a column a subgroup, by what the rows are of."""
    numbers: dict[str, int] = {}
    found: dict[RowKey, dict[str, ScoreRow]] = {}  # the rows with most labels, by subgroup
    for each in results:
        for subgroup in each.results.subgroups:
            if subgroup.attribute == attribute:
                numbers[subgroup.value] = subgroup.n_test_subjects
                for row in subgroup.rows:
                    if row.subjects == each.largest_budget(row.method):
                        found.setdefault(row.key, {})[subgroup.value] = row
    rows = {
        key: (
            method_title(key[0]),
            initialization_title(key[1]),
            *(format_row(own.get(value)) for value in numbers),
        )
        for key, own in found.items()
    }
    return ("method", "initialization", *(f"{value} ({n})" for value, n in numbers.items())), rows
