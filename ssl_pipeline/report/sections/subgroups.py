"""Scores by subgroup of test scans, and the gap between the best and the worst."""

from collections.abc import Callable, Mapping, Sequence

from ssl_pipeline.formatting import NO_VALUE, format_difference
from ssl_pipeline.report.data.results import Row, TaskResult, initialization_title, method_title
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.report.sections.tables import format_estimate, format_mean

Key = tuple[str, str, int]  # method, initialization, labelled subjects


def subgroup_tables(results: Sequence[TaskResult]) -> list[Table]:
    """One table per grouping, with the most labelled subjects."""
    return [_gap_table(results, name) for name in _group_names(results)]


def subgroup_metric_tables(results: Sequence[TaskResult]) -> list[Table]:
    """The same for each other metric, without gaps."""
    rows = [row for each in results for row in each.content["rows"]]
    metrics = dict.fromkeys(metric for row in rows for metric in row["other_metrics"])
    return [
        _metric_table(results, name, each) for name in _group_names(results) for each in metrics
    ]


def _group_names(results: Sequence[TaskResult]) -> list[str]:
    names = [group["group"] for each in results for group in each.content["groups"]]
    return list(dict.fromkeys(names))


def _gap_table(results: Sequence[TaskResult], group_name: str) -> Table:
    found = [gap for each in results for gap in each.content["gaps"] if gap["group"] == group_name]
    gaps = {_row_key(gap): format_difference(gap["mean"], gap["low"], gap["high"]) for gap in found}
    head, rows = _rows(results, group_name, format_mean)
    caption = (
        f"{results[0].content['metric']} by {group_name} (test subjects), with the most labelled "
        "subjects; the gap is between the best and the worst group that has all classes, with a "
        "simultaneous interval over all pairs"
    )
    cells = [(*row, gaps.get(key, NO_VALUE)) for key, row in rows.items()]
    return Table(caption, (*head, "gap"), cells, text_columns=2)


def _metric_table(results: Sequence[TaskResult], group_name: str, metric: str) -> Table:
    def score_of(row: Row | None) -> str:
        return (
            format_estimate(row["other_metrics"][metric])
            if row and metric in row["other_metrics"]
            else NO_VALUE
        )

    head, rows = _rows(results, group_name, score_of)
    caption = f"{metric} by {group_name} (test subjects), with the most labelled subjects"
    return Table(caption, head, list(rows.values()), text_columns=2)


def _rows(
    results: Sequence[TaskResult], group_name: str, format_row: Callable[[Row | None], str]
) -> tuple[tuple[str, ...], Mapping[Key, tuple[str, ...]]]:
    """The head and the rows of a table with a column a group, by what the rows are of."""
    numbers: dict[str, int] = {}
    found: dict[Key, dict[str, Row]] = {}  # the rows with most labels, by group
    for each in results:
        for group in (group for group in each.content["groups"] if group["group"] == group_name):
            numbers[group["value"]] = group["n_test_subjects"]
            for row in group["rows"]:
                if row["subjects"] == each.label_budgets(row["method"])[-1]:
                    found.setdefault(_row_key(row), {})[group["value"]] = row
    rows = {
        key: (
            method_title(key[0]),
            initialization_title(key[1]),
            *(format_row(own.get(value)) for value in numbers),
        )
        for key, own in found.items()
    }
    return ("method", "initialization", *(f"{value} ({n})" for value, n in numbers.items())), rows


def _row_key(row: Row) -> Key:
    return row["method"], row["initialization"], row["subjects"]
