"""Tables of a task's results: scores, differences, classes and costs."""

from collections.abc import Iterable, Sequence
from statistics import mean

from ssl_pipeline.evaluation.cells import NOT_PRETRAINED
from ssl_pipeline.evaluation.metrics.metric import METRICS
from ssl_pipeline.evaluation.records import ScoreRow
from ssl_pipeline.evaluation.statistics.estimates import Estimate, PairedDifference, SeedEstimate
from ssl_pipeline.formatting import (
    NO_VALUE,
    format_count,
    format_difference,
    format_duration,
    format_p_value,
    format_score,
    format_with_interval,
    format_with_spread,
)
from ssl_pipeline.report.data.results import TaskResult, initialization_title, method_title
from ssl_pipeline.report.render.table import Badge, Table


def score_table(results: Sequence[TaskResult]) -> Table:
    """Score of every method, initialization and number of labelled subjects."""
    starts = tuple(dict.fromkeys(init for each in results for init in each.initializations))
    rows = [
        (
            method_title(method),
            each.budget_text(subjects),
            *(_score_cell(each, method, init, subjects) for init in starts),
        )
        for each in results
        for method in each.methods
        for subjects in each.label_budgets(method)
    ]
    caption = f"{results[0].metric.title}, {_spread_note(results)}"
    head = ("method", "labelled subjects", *map(initialization_title, starts))
    return Table(caption, head, rows, text_columns=2)


def difference_table(results: Sequence[TaskResult]) -> Table:
    """Differences of each encoder from the baselines and from the encoders before it."""
    starts = dict.fromkeys(init for each in results for init in each.initializations)
    encoders = [start for start in starts if start not in NOT_PRETRAINED]
    others = [*(start for start in NOT_PRETRAINED if start in starts), *encoders[:-1]]
    rows = []
    for each in results:
        found = {
            (c.key, c.against): difference_cell(c, _p_text(c.p, each.corrected_p.get(index)))
            for index, c in enumerate(each.results.differences)
        }
        for key in dict.fromkeys(key for key, _ in found):
            method, init, subjects = key
            cells = (found.get((key, other), NO_VALUE) for other in others)
            rows.append((init, method_title(method), each.budget_text(subjects), *cells))
    head = (
        "encoder",
        "method",
        "labelled subjects",
        *(f"minus {initialization_title(o)}" for o in others),
    )
    caption = (
        "Differences of encoders from the others, paired by subject and seed; without a label: no "
        "clear difference"
    )
    if any(c.p is not None for each in results for c in each.results.differences):
        caption += (
            "; p of the same variance as the interval, in brackets corrected for all comparisons of"
            " the study"
        )
    return Table(caption, head, rows, text_columns=3)


def class_table(results: Sequence[TaskResult]) -> Table:
    """Score of each class, with the most labelled subjects."""
    classes = results[0].results.classes
    found = list(largest_budget_rows(results))
    further = tuple(dict.fromkeys(name for _, row in found for name in row.other_metrics))
    rows = [
        (
            method_title(row.method),
            initialization_title(row.initialization),
            *(format_score(row.per_class.get(name)) for name in classes),
            *(format_estimate(row.other_metrics[name]) for name in further),
        )
        for _, row in found
    ]
    per_class = results[0].metric.per_class_title
    what = f"{per_class} of each class, and other metrics" if per_class else "other metrics"
    head = ("method", "initialization", *classes, *(METRICS[name].title for name in further))
    caption = f"{what[0].upper()}{what[1:]}, with the most labelled subjects"
    return Table(caption, head, rows, text_columns=2)


def format_estimate(estimate: Estimate) -> str:
    """An estimate with its interval, if it has one."""
    return format_with_interval(estimate.mean, estimate.low, estimate.high)


def cost_table(results: Sequence[TaskResult]) -> Table | None:
    """Cost of one run with the most labelled subjects; None where no costs were recorded."""
    rows = []
    for each, row in largest_budget_rows(results):
        own = [cost for cost in each.costs if cost.key == row.key]
        if own:
            memory = own[0].memory_bytes
            rows.append(
                (
                    method_title(row.method),
                    initialization_title(row.initialization),
                    f"{own[0].trained_parameters:,}",
                    format_duration(mean(cost.seconds + cost.feature_seconds for cost in own)),
                    f"{memory / 1e6:,.0f} MB" if memory else NO_VALUE,
                )
            )
    head = ("method", "initialization", "trained parameters", "time", "memory of training")
    caption = (
        "Cost of one run with the most labelled subjects, features included; where weights of a "
        "network are trained, with the memory of that (the cost of whole stages is in Provenance)"
    )
    return Table(caption, head, rows, text_columns=2) if rows else None


def largest_budget_rows(results: Iterable[TaskResult]) -> Iterable[tuple[TaskResult, ScoreRow]]:
    """Rows with the most labels; rows that methods share come once."""
    found: list[ScoreRow] = []
    for each in results:
        for method in each.methods:
            for init in each.initializations:
                row = each.row(method, init, each.largest_budget(method))
                if row and row not in found:
                    found.append(row)
                    yield each, row


def _spread_note(results: Sequence[TaskResult]) -> str:
    numbers = sorted({each.results.n_seeds for each in results})
    few = f"{numbers[0]} to " if numbers[0] < numbers[-1] else ""
    seeds = few + format_count(numbers[-1], "seed")
    if any(each.has_intervals for each in results):
        share = f"{100 * results[0].results.confidence:g} %"
        return f"mean over {seeds}, with {share} confidence interval over seeds and subjects"
    return f"mean ± standard deviation over {seeds}"


def _score_cell(result: TaskResult, method: str, init: str, subjects: int) -> str | Badge:
    failed = result.count_failures(method, init, subjects)
    if failed:
        return Badge(format_count(failed, "seed"), "failed", "worse")
    return format_mean(result.row(method, init, subjects))


def format_mean(row: SeedEstimate | None) -> str:
    """A row's mean with its interval, or its spread over seeds where it has none."""
    if row is None:
        return NO_VALUE
    if row.interval is None:
        return format_with_spread(row.mean, row.sd_seeds)
    return format_estimate(row)


def difference_cell(difference: PairedDifference | None, text: str = "") -> str | Badge:
    """A difference, with a label where its interval excludes zero."""
    if difference is None:
        return NO_VALUE
    text = format_difference(difference.mean, difference.low, difference.high) + text
    outcome = difference.outcome
    return Badge(text, outcome, outcome) if outcome in ("better", "worse") else text


def _p_text(p: float | None, corrected: float | None) -> str:
    """A p-value that agrees with its interval, and the corrected one; empty without."""
    if p is None or corrected is None:
        return ""
    return f", p {format_p_value(p)} ({format_p_value(corrected).removeprefix('= ')})"
