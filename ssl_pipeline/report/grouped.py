"""Scores of each group of scored scans, and how far the worst is behind the best."""

from collections.abc import Callable, Mapping, Sequence

from ssl_pipeline.report.judgements import Judgement, Row, method_name, start_name
from ssl_pipeline.report.numerals import NOTHING, difference
from ssl_pipeline.report.tables import Table, mean_of, shown

Key = tuple[str, str, int]  # method, start, labelled subjects


def grouped(judgements: Sequence[Judgement]) -> list[Table]:
    """Of each name that groups are told apart by, one table, with most labels."""
    return [_with_gaps(judgements, name) for name in _names(judgements)]


def grouped_further(judgements: Sequence[Judgement]) -> list[Table]:
    """The same for each further metric, without gaps."""
    rows = [row for each in judgements for row in each.results["rows"]]
    metrics = dict.fromkeys(metric for row in rows for metric in row["further"])
    return [_further(judgements, name, each) for name in _names(judgements) for each in metrics]


def _names(judgements: Sequence[Judgement]) -> list[str]:
    names = [group["group"] for each in judgements for group in each.results["groups"]]
    return list(dict.fromkeys(names))


def _with_gaps(judgements: Sequence[Judgement], name: str) -> Table:
    found = [gap for each in judgements for gap in each.results["gaps"] if gap["group"] == name]
    gaps = {_key(gap): difference(gap["mean"], gap["low"], gap["high"]) for gap in found}
    head, rows = _rows(judgements, name, mean_of)
    caption = (
        f"{judgements[0].results['metric']} by {name} (scored subjects), with most labels; the gap "
        "is between the best and the worst of them that show all classes, with an interval for "
        "every pair at once"
    )
    told = [(*row, gaps.get(key, NOTHING)) for key, row in rows.items()]
    return Table(caption, (*head, "gap"), told, words=2)


def _further(judgements: Sequence[Judgement], name: str, metric: str) -> Table:
    def told(row: Row | None) -> str:
        return shown(row["further"][metric]) if row and metric in row["further"] else NOTHING

    head, rows = _rows(judgements, name, told)
    caption = f"{metric} by {name} (scored subjects), with most labels"
    return Table(caption, head, list(rows.values()), words=2)


def _rows(
    judgements: Sequence[Judgement], name: str, told: Callable[[Row | None], str]
) -> tuple[tuple[str, ...], Mapping[Key, tuple[str, ...]]]:
    """The head and the rows of a table with a column a group, by what the rows are of."""
    numbers: dict[str, int] = {}
    found: dict[Key, dict[str, Row]] = {}  # the rows with most labels, by group
    for each in judgements:
        for group in (group for group in each.results["groups"] if group["group"] == name):
            numbers[group["value"]] = group["n_test_subjects"]
            for row in group["rows"]:
                if row["subjects"] == each.budgets(row["method"])[-1]:
                    found.setdefault(_key(row), {})[group["value"]] = row
    rows = {
        key: (
            method_name(key[0]),
            start_name(key[1]),
            *(told(own.get(value)) for value in numbers),
        )
        for key, own in found.items()
    }
    return ("method", "start", *(f"{value} ({n})" for value, n in numbers.items())), rows


def _key(row: Row) -> Key:
    return row["method"], row["init"], row["subjects"]
