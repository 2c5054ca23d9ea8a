"""Tables of a task's results: scores, differences, classes and costs."""

from collections.abc import Iterable, Sequence
from statistics import mean

from ssl_pipeline.evaluation.cells import NOT_PRETRAINED
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
from ssl_pipeline.report.data.results import Row, TaskResult, initialization_title, method_title
from ssl_pipeline.report.render.table import Badge, Table
from ssl_pipeline.report.sections.conclusions import Comparison


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
    first = results[0].content
    caption = f"{first['metric']}, {_spread_note(results)}"
    head = ("method", "labelled subjects", *map(initialization_title, starts))
    return Table(caption, head, rows, text_columns=2)


def difference_table(results: Sequence[TaskResult]) -> Table:
    """Differences of each encoder from the baselines and from the encoders before it."""
    starts = dict.fromkeys(init for each in results for init in each.initializations)
    encoders = [start for start in starts if start not in NOT_PRETRAINED]
    others = [*(start for start in NOT_PRETRAINED if start in starts), *encoders[:-1]]
    rows = []
    for each in results:
        compared = [Comparison(**row) for row in each.content["differences"]]
        found = {(c.initialization, c.method, c.subjects, c.against): c for c in compared}
        for key in dict.fromkeys(key[:3] for key in found):
            init, method, subjects = key
            cells = (_difference_cell(found.get((*key, other))) for other in others)
            rows.append((init, method_title(method), each.budget_text(subjects), *cells))
    head = (
        "encoder",
        "method",
        "labelled subjects",
        *(f"minus {initialization_title(o)}" for o in others),
    )
    caption = "Differences of encoders from the others, paired by subject and seed"
    if any(row["p"] is not None for each in results for row in each.content["differences"]):
        caption += "; p of a permutation of subjects, corrected for all comparisons of the study"
    return Table(caption, head, rows, text_columns=3)


def class_table(results: Sequence[TaskResult]) -> Table:
    """Score of each class, with the most labelled subjects."""
    classes = tuple(results[0].content["classes"])
    found = list(_largest_budget_rows(results))
    further = tuple(dict.fromkeys(name for _, row in found for name in row["other_metrics"]))
    rows = [
        (
            method_title(row["method"]),
            initialization_title(row["initialization"]),
            *(format_score(row["per_class"].get(name)) for name in classes),
            *(format_estimate(row["other_metrics"][name]) for name in further),
        )
        for _, row in found
    ]
    each = "Dice" if results[0].content["kind"] == "segmentation" else "Recall"
    what = f"{each} of each class, and other metrics" if classes else "Other metrics"
    head = ("method", "initialization", *classes, *further)
    return Table(f"{what}, with the most labelled subjects", head, rows, text_columns=2)


def format_estimate(estimate: Row) -> str:
    """An estimate with its interval, if it has one."""
    return format_with_interval(estimate["mean"], estimate["low"], estimate["high"])


def cost_table(results: Sequence[TaskResult]) -> Table | None:
    """Cost of one run with the most labelled subjects; None where no costs were recorded."""
    rows = []
    for each, row in _largest_budget_rows(results):
        own = [
            cost
            for cost in each.costs
            if all(cost[key] == row[key] for key in ("method", "initialization", "subjects"))
        ]
        if own:
            seconds = mean(cost["seconds"] + cost.get("feature_seconds", 0) for cost in own)
            parameters = f"{own[0]['trained_parameters']:,}"
            start = initialization_title(row["initialization"])
            memory = own[0].get("memory_bytes")
            rows.append(
                (
                    method_title(row["method"]),
                    start,
                    parameters,
                    format_duration(seconds),
                    f"{memory / 1e6:,.0f} MB" if memory else NO_VALUE,
                )
            )
    head = ("method", "initialization", "trained parameters", "time", "memory of training")
    caption = (
        "Cost of one run with the most labelled subjects, features included; where weights of a "
        "network are trained, with the memory of that (the cost of whole stages is in Provenance)"
    )
    return Table(caption, head, rows, text_columns=2) if rows else None


def _largest_budget_rows(results: Iterable[TaskResult]) -> Iterable[tuple[TaskResult, Row]]:
    """Rows with the most labels; rows that methods share come once."""
    found: list[Row] = []
    for each in results:
        for method in each.methods:
            for init in each.initializations:
                row = each.row(method, init, each.label_budgets(method)[-1])
                if row and row not in found:
                    found.append(row)
                    yield each, row


def _spread_note(results: Sequence[TaskResult]) -> str:
    first = results[0].content
    numbers = sorted({each.content["n_seeds"] for each in results})
    few = f"{numbers[0]} to " if numbers[0] < numbers[-1] else ""
    seeds = few + format_count(numbers[-1], "seed")
    if any(each.has_intervals for each in results):
        share = f"{100 * first['confidence']:g} %"
        return f"mean over {seeds}, with {share} interval over these and scored subjects"
    return f"mean ± standard deviation over {seeds}"


def _score_cell(result: TaskResult, method: str, init: str, subjects: int) -> str | Badge:
    failed = result.count_failures(method, init, subjects)
    if failed:
        return Badge(format_count(failed, "seed"), "failed", "worse")
    return format_mean(result.row(method, init, subjects))


def format_mean(row: Row | None) -> str:
    """A row's mean with its interval, or its spread over seeds where it has none."""
    if row is None:
        return NO_VALUE
    if row["low"] is None:
        return format_with_spread(row["mean"], row["sd_seeds"])
    return format_with_interval(row["mean"], row["low"], row["high"])


def _difference_cell(comparison: Comparison | None) -> str | Badge:
    if comparison is None:
        return NO_VALUE
    tone = comparison.outcome.replace(" ", "-")
    text = format_difference(comparison.mean, comparison.low, comparison.high)
    if comparison.p is not None:
        text += f", p {format_p_value(comparison.p)}"
    return Badge(text, comparison.outcome, tone)
