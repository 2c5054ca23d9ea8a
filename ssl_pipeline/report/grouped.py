"""Scores of each group of scored scans, and how far the worst is behind the best."""

from collections.abc import Sequence

from ssl_pipeline.report.judgements import Judgement, Row, method_name, start_name
from ssl_pipeline.report.numerals import NOTHING, difference
from ssl_pipeline.report.tables import Table, mean_of


def grouped(judgements: Sequence[Judgement]) -> list[Table]:
    """Of each name that groups are told apart by, one table, with most labels."""
    names = [group["group"] for each in judgements for group in each.results.get("groups", ())]
    return [_table(judgements, name) for name in dict.fromkeys(names)]


def _table(judgements: Sequence[Judgement], name: str) -> Table:
    numbers: dict[str, int] = {}
    rows = []
    for each in judgements:
        own = [group for group in each.results.get("groups", ()) if group["group"] == name]
        numbers |= {group["value"]: group["n_test_subjects"] for group in own}
        found = {(_key(row), group["value"]): row for group in own for row in group["rows"]}
        gaps = {_key(gap): gap for gap in each.results["gaps"] if gap["group"] == name}
        for key in dict.fromkeys(key for key, _ in found):
            if key[2] == each.budgets(key[0])[-1]:
                rows.append((key, found, gaps.get(key)))
    told = [
        (
            method_name(key[0]),
            start_name(key[1]),
            *(mean_of(found.get((key, value))) for value in numbers),
            difference(gap["mean"], gap["low"], gap["high"]) if gap else NOTHING,
        )
        for key, found, gap in rows
    ]
    heads = (f"{value} ({number})" for value, number in numbers.items())
    caption = (
        f"{judgements[0].results['metric']} by {name} (scored subjects), with most labels; the gap "
        "is between the best and the worst of them that show all classes, with an interval for "
        "every pair at once"
    )
    return Table(caption, ("method", "start", *heads, "gap"), told, words=2)


def _key(row: Row) -> tuple[str, str, int]:
    return row["method"], row["init"], row["subjects"]
