"""Tables of a task's results: scores, differences, classes and costs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from ssl_pipeline.evaluation.cells import UNTRAINED
from ssl_pipeline.report.judgements import Judgement, Row, method_name, start_name
from ssl_pipeline.report.numerals import (
    NOTHING,
    count,
    difference,
    duration,
    probability,
    score,
    with_interval,
    with_spread,
)
from ssl_pipeline.report.verdict import Comparison


@dataclass(frozen=True)
class Badge:
    """A cell with a coloured word behind its text."""

    text: str
    word: str
    tone: str


@dataclass(frozen=True)
class Table:
    """What the page shows as a table; the first `words` columns are text, the others numbers."""

    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str | Badge, ...]]
    words: int = 1
    wraps: bool = False  # whether a cell may break into lines


def scores(judgements: Sequence[Judgement]) -> Table:
    """Score of every method, start and number of labelled subjects."""
    starts = tuple(dict.fromkeys(init for each in judgements for init in each.starts))
    rows = [
        (
            method_name(method),
            each.budget(subjects),
            *(_cell(each, method, init, subjects) for init in starts),
        )
        for each in judgements
        for method in each.methods
        for subjects in each.budgets(method)
    ]
    first = judgements[0].results
    caption = f"{first['metric']}, {_spread(judgements)}"
    head = ("method", "labelled subjects", *map(start_name, starts))
    return Table(caption, head, rows, words=2)


def differences(judgements: Sequence[Judgement]) -> Table:
    """Each encoder less what is not trained and less those before it."""
    starts = dict.fromkeys(init for each in judgements for init in each.starts)
    encoders = [start for start in starts if start not in UNTRAINED]
    others = [*(start for start in UNTRAINED if start in starts), *encoders[:-1]]
    rows = []
    for each in judgements:
        compared = [Comparison(**row) for row in each.results["differences"]]
        found = {(c.init, c.method, c.subjects, c.against): c for c in compared}
        for key in dict.fromkeys(key[:3] for key in found):
            init, method, subjects = key
            cells = (_difference(found.get((*key, other))) for other in others)
            rows.append((init, method_name(method), each.budget(subjects), *cells))
    head = ("encoder", "method", "labelled subjects", *(f"less {start_name(o)}" for o in others))
    caption = "Encoders less the others, paired by subject and seed"
    if any(row["p"] is not None for each in judgements for row in each.results["differences"]):
        caption += "; p of a permutation of subjects, corrected for all comparisons of the study"
    return Table(caption, head, rows, words=3)


def per_class(judgements: Sequence[Judgement]) -> Table:
    """Score of each class, with the most labelled subjects."""
    classes = tuple(judgements[0].results["classes"])
    found = list(_largest(judgements))
    further = tuple(dict.fromkeys(name for _, row in found for name in row["further"]))
    rows = [
        (
            method_name(row["method"]),
            start_name(row["init"]),
            *(score(row["per_class"].get(name)) for name in classes),
            *(shown(row["further"][name]) for name in further),
        )
        for _, row in found
    ]
    each = "Dice" if judgements[0].results["kind"] == "segmentation" else "Recall"
    what = f"{each} of each class, and further metrics" if classes else "Further metrics"
    head = ("method", "start", *classes, *further)
    return Table(f"{what}, with the most labelled subjects", head, rows, words=2)


def shown(told: Row) -> str:
    """A figure with its interval, if it has one."""
    return with_interval(told["mean"], told["low"], told["high"])


def costs(judgements: Sequence[Judgement]) -> Table | None:
    """What a result costs to get, with the most labelled subjects; None where nobody noted it."""
    rows = []
    for each, row in _largest(judgements):
        own = [
            cost
            for cost in each.costs
            if all(cost[key] == row[key] for key in ("method", "init", "subjects"))
        ]
        if own:
            seconds = mean(cost["seconds"] + cost.get("feature_seconds", 0) for cost in own)
            parameters = f"{own[0]['trained_parameters']:,}"
            start = start_name(row["init"])
            memory = own[0].get("memory_bytes")
            rows.append(
                (
                    method_name(row["method"]),
                    start,
                    parameters,
                    duration(seconds),
                    f"{memory / 1e6:,.0f} MB" if memory else NOTHING,
                )
            )
    head = ("method", "start", "trained parameters", "time", "memory of training")
    caption = (
        "Cost of one run with the most labelled subjects, features included; where weights of a "
        "network are trained, with the memory of that (what a whole stage took is in Provenance)"
    )
    return Table(caption, head, rows, words=2) if rows else None


def _largest(judgements: Iterable[Judgement]) -> Iterable[tuple[Judgement, Row]]:
    """Rows with the most labels; what methods share comes once."""
    seen: list[Row] = []
    for each in judgements:
        for method in each.methods:
            for init in each.starts:
                row = each.row(method, init, each.budgets(method)[-1])
                if row and row not in seen:
                    seen.append(row)
                    yield each, row


def _spread(judgements: Sequence[Judgement]) -> str:
    first = judgements[0].results
    numbers = sorted({each.results["n_seeds"] for each in judgements})
    few = f"{numbers[0]} to " if numbers[0] < numbers[-1] else ""
    seeds = few + count(numbers[-1], "seed")
    if any(each.has_intervals for each in judgements):
        share = f"{100 * first['confidence']:g} %"
        return f"mean over {seeds}, with {share} interval over these and scored subjects"
    return f"mean ± standard deviation over {seeds}"


def _cell(judgement: Judgement, method: str, init: str, subjects: int) -> str | Badge:
    failed = judgement.failed(method, init, subjects)
    if failed:
        return Badge(count(failed, "seed"), "failed", "worse")
    return mean_of(judgement.row(method, init, subjects))


def mean_of(row: Row | None) -> str:
    """A row's mean with its interval, or its spread over seeds where it has none."""
    if row is None:
        return NOTHING
    if row["low"] is None:
        return with_spread(row["mean"], row["sd_seeds"])
    return with_interval(row["mean"], row["low"], row["high"])


def _difference(found: Comparison | None) -> str | Badge:
    if found is None:
        return NOTHING
    tone = found.outcome.replace(" ", "-")
    text = difference(found.mean, found.low, found.high)
    if found.p is not None:
        text += f", p {probability(found.p)}"
    return Badge(text, found.outcome, tone)
