"""Scores of each group of scored scans, and how far the worst is behind the best."""

from collections.abc import Sequence

from ssl_pipeline.report.judgements import Judgement, Row, method_name, start_name
from ssl_pipeline.report.numerals import NOTHING, difference, with_interval, with_spread
from ssl_pipeline.report.tables import Table


def grouped(judgements: Sequence[Judgement]) -> list[Table]:
    """Of each name that groups are told apart by, one table, with most labels."""
    names = [group["group"] for each in judgements for group in each.results.get("groups", ())]
    return [_table(judgements, name) for name in dict.fromkeys(names)]


def _table(judgements: Sequence[Judgement], name: str) -> Table:
    numbers: dict[str, int] = {}
    for each in judgements:
        numbers |= {own["value"]: own["n_test_subjects"] for own in _groups(each, name)}
    rows = []
    for each in judgements:
        for key in dict.fromkeys(_key(row) for own in _groups(each, name) for row in own["rows"]):
            method, init, subjects = key
            if subjects != each.budgets(method)[-1]:
                continue
            found = {
                own["value"]: row
                for own in _groups(each, name)
                for row in own["rows"]
                if _key(row) == key
            }
            gaps = (gap for gap in each.results["gaps"] if gap["group"] == name)
            apart = next((gap for gap in gaps if _key(gap) == key), None)
            cells = (_score(found.get(value)) for value in numbers)
            last = difference(apart["mean"], apart["low"], apart["high"]) if apart else NOTHING
            rows.append((method_name(method), start_name(init), *cells, last))
    heads = (f"{value} ({number})" for value, number in numbers.items())
    metric = judgements[0].results["metric"]
    caption = (
        f"{metric} by {name} (scored subjects), with most labels; the gap is between the best and "
        "the worst of them that show all classes, with an interval for every pair at once"
    )
    return Table(caption, ("method", "start", *heads, "gap"), rows, words=2)


def _groups(judgement: Judgement, name: str) -> list[Row]:
    return [group for group in judgement.results.get("groups", ()) if group["group"] == name]


def _key(row: Row) -> tuple[str, str, int]:
    return row["method"], row["init"], row["subjects"]


def _score(row: Row | None) -> str:
    if row is None:
        return NOTHING
    if row["low"] is None:
        return with_spread(row["mean"], row["sd_seeds"])
    return with_interval(row["mean"], row["low"], row["high"])
