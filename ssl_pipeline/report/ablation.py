"""The table of an ablation in Markdown: to be read, sent and committed as it is."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from ssl_pipeline.evaluation.ablation import row_of
from ssl_pipeline.evaluation.cells import BASELINE, BASELINES
from ssl_pipeline.report.judgements import method_name
from ssl_pipeline.report.numerals import NOTHING, difference, duration, with_interval, with_spread

Results = Mapping[str, Any]


def markdown(results: Results) -> str:
    """The whole comparison: what each arm cost, and for every task its scores and differences."""
    tables = results["tables"]
    lines = [f"# Ablation of {results['study']}", "", _what(results, tables[0]), ""]
    lines += _lines(
        ("arm", "steps", "operations a step", "time an encoder", "verdicts on its runs"),
        (
            (
                arm["name"],
                f"{arm['steps']:,}",
                f"{arm['step_flops']:.3g}",
                duration(fmean(arm["seconds"])),
                ", ".join(arm["verdicts"]),
            )
            for arm in results["arms"]
        ),
        words=1,
    )
    for name in dict.fromkeys(table["name"] for table in tables):
        lines += _task([table for table in tables if table["name"] == name])
    return "\n".join(lines) + "\n"


def _task(tables: Sequence[Results]) -> Iterator[str]:
    """What all stages that judged a task say of it."""
    first = tables[0]
    yield from ("", f"## {first['task']} ({first['metric']}, {first['n_test_subjects']} subjects)")
    for warning in dict.fromkeys(table["warning"] for table in tables if table["warning"]):
        yield from ("", f"**{warning}**")
    yield from ("", *_scores(tables), "", *_differences(tables))
    for note in dict.fromkeys(table["note"] for table in tables if table["note"]):
        yield from ("", note)


def _what(results: Results, table: Results) -> str:
    share = f"{100 * table['confidence']:g} %"
    return (
        f"Every encoder was trained with {results['flops']:.3g} operations, as torch's "
        f"FlopCounterMode counts them, and each arm {table['n_seeds']} times. Scores are means "
        f"over these seeds, on subjects of the split {table['split']}, with {share} intervals over "
        "both subjects and seeds; differences are paired by both. Rows of few labelled subjects "
        "are means over draws of these too."
    )


def _scores(tables: Sequence[Results]) -> Iterator[str]:
    rows = {(r["arm"], r["method"], r["subjects"]): r for t in tables for r in t["rows"]}
    arms = list(dict.fromkeys(arm for arm, _, _ in rows))
    yield from _lines(
        ("method", "labelled subjects", *arms),
        (
            (
                method_name(method),
                _budget(subjects, tables[0]),
                *(_score(row_of(rows, arm, method, subjects)) for arm in arms),
            )
            for method, subjects in dict.fromkeys(key[1:] for key in rows if key[1] != BASELINE)
        ),
        words=2,
    )


def _differences(tables: Sequence[Results]) -> Iterator[str]:
    """Of arms from each other and from random weights; those from baselines are in the results."""
    rows = {
        ((d["arm"], d["against"]), d["method"], d["subjects"]): d
        for table in tables
        for d in table["differences"]
        if d["against"] not in BASELINES
    }
    pairs = list(dict.fromkeys(pair for pair, _, _ in rows))
    yield from _lines(
        ("method", "labelled subjects", *(f"{arm} less {against}" for arm, against in pairs)),
        (
            (
                method_name(method),
                _budget(subjects, tables[0]),
                *(_difference(rows.get((pair, method, subjects))) for pair in pairs),
            )
            for method, subjects in dict.fromkeys(key[1:] for key in rows)
        ),
        words=2,
    )


def _lines(head: Sequence[str], rows: Iterator[tuple[str, ...]], words: int) -> Iterator[str]:
    """A table in Markdown; the first `words` columns are text, the others numbers."""
    yield _line(head)
    yield _line(["---"] * words + ["---:"] * (len(head) - words))
    for row in rows:
        yield _line(row)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _budget(subjects: int, table: Results) -> str:
    return str(subjects) if subjects else f"all ({table['n_train_subjects']})"


def _score(row: Results | None) -> str:
    """With its interval, or with the spread of seeds where there are too few subjects for one."""
    if row is None:
        return NOTHING
    if row["low"] is None:
        return with_spread(row["mean"], stdev(row["per_seed"]))
    return with_interval(row["mean"], row["low"], row["high"])


def _difference(row: Results | None) -> str:
    """In bold where the interval does not hold zero."""
    if row is None:
        return NOTHING
    text = difference(row["mean"], row["low"], row["high"])
    decided = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
    return f"**{text}**" if decided else text
