"""Conclusions in words: whether pretraining helps, as far as the confidence intervals show.

"Better" and "worse" are used only for differences whose interval excludes zero. Where too few
subjects were evaluated for an interval, the report says so instead.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ssl_pipeline.evaluation.cells import BASELINES, NOT_PRETRAINED, RANDOM
from ssl_pipeline.evaluation.records import Comparison
from ssl_pipeline.evaluation.statistics.estimates import Outcome
from ssl_pipeline.formatting import format_count, format_difference, format_score
from ssl_pipeline.report.data.results import TaskResult, method_title

VERDICTS: dict[Outcome, str] = {
    "better": "pretraining helps",
    "worse": "pretraining harms",
    "undecided": "no clear difference",
    "no interval": "too few subjects to decide",
}


def collect_comparisons(results: Iterable[TaskResult]) -> list[Comparison]:
    """All differences of these results."""
    return [comparison for each in results for comparison in each.results.differences]


def overall_conclusion(results_by_task: Mapping[str, Sequence[TaskResult]]) -> str:
    """The conclusion over all tasks, one sentence per encoder."""
    all_results = [each for results in results_by_task.values() for each in results]
    found = collect_comparisons(all_results)
    if not all_results:
        return (
            "No task has been evaluated on scans like those of its training, so nothing is known "
            "of what the encoder is worth there."
        )
    if not found:
        return "Not known, for every comparison of an encoder has cells that failed; see below."
    if all(each.outcome == "no interval" for each in found):
        return (
            f"Not decided, for there is {no_interval_note(all_results)}; {_mean_tendency(found)}."
        )
    encoders = dict.fromkeys(each.initialization for each in found)
    sentences = {
        init: _encoder_conclusion([each for each in found if each.initialization == init])
        for init in encoders
    }
    if len(sentences) == 1:
        return next(iter(sentences.values()))
    return " ".join(f"{init}: {sentence}" for init, sentence in sentences.items())


def shift_conclusion(results_by_task: Mapping[str, Sequence[TaskResult]]) -> str:
    """The conclusion over tasks of shift, which no other one contains; empty without results."""
    return overall_conclusion(results_by_task) if any(results_by_task.values()) else ""


def _encoder_conclusion(compared: Sequence[Comparison]) -> str:
    """The conclusion for one encoder."""
    random, *plain = (_compared_with(compared, other) for other in NOT_PRETRAINED)
    names = ("random weights", *BASELINES)
    parts = [_count_outcomes(own, o) for own, o in zip((random, *plain), names, strict=True) if own]
    return f"{_headline(random, [each for own in plain for each in own])}: {'; '.join(parts)}."


def task_sentence(result: TaskResult, method: str) -> str:
    """Whether pretraining helps in a task, by one method with the most labelled subjects."""
    subjects = result.largest_budget(method)
    compared = {
        each.initialization: each
        for each in result.results.differences
        if (each.method, each.subjects, each.against) == (method, subjects, RANDOM)
    }
    if not compared:
        return "Not compared with random weights."
    verdicts = {init: VERDICTS[each.outcome] for init, each in compared.items()}
    scores = {
        init: f"{result.metric.title} {_mean_score(result, method, init)} against "
        f"{_mean_score(result, method, RANDOM)} of random weights"
        for init in compared
    }
    labels = f"with {format_count(subjects or result.results.n_train_subjects, 'labelled subject')}"
    if len(compared) == 1:
        (init,) = compared
        return f"{verdicts[init].capitalize()}: {scores[init]}, {labels}."
    return "; ".join(f"{i}: {verdicts[i]}, {scores[i]}" for i in compared) + f", {labels}."


def _mean_score(result: TaskResult, method: str, init: str) -> str:
    row = result.row(method, init, result.largest_budget(method))
    return format_score(row.mean if row else None)


def task_conclusion(results: Sequence[TaskResult]) -> str:
    """The conclusion for one task."""
    found = _compared_with(collect_comparisons(results), RANDOM)
    if not found:
        return "not compared with random weights."
    if all(each.outcome == "no interval" for each in found):
        return f"{no_interval_note(results)}; {_mean_tendency(found)}."
    several = len({each.initialization for each in found}) > 1
    last = {(each.initialization, each.method): each for each in found}  # budgets rise
    largest = [
        f"{f'{init}, ' if several else ''}{method_title(method)} "
        f"{format_difference(each.mean, each.low, each.high)}"
        for (init, method), each in last.items()
    ]
    return f"{_count_outcomes(found, 'random weights')}. With most labels: {'; '.join(largest)}."


def no_interval_note(results: Iterable[TaskResult]) -> str:
    """That there is no interval, and why."""
    numbers = sorted({each.results.n_test_subjects for each in results})
    shown = format_count(numbers[-1], "scored subject")
    few = shown if len(numbers) == 1 else f"{numbers[0]} to {shown}"
    return f"no confidence interval over subjects: {few}; spread over seeds shown"


def _compared_with(compared: Iterable[Comparison], other: str) -> list[Comparison]:
    return [each for each in compared if each.against == other]


def _headline(random: Sequence[Comparison], baselines: Sequence[Comparison]) -> str:
    """First word of the conclusion; no plain "Yes" where a simple baseline is better anywhere."""
    outcomes = Counter(each.outcome for each in random)
    lost = outcomes["worse"] or any(each.outcome == "worse" for each in baselines)
    if not outcomes["better"]:
        return "No" if outcomes["worse"] else "Not shown"
    if lost or 2 * outcomes["better"] < len(random):
        return "In part"
    return "Yes" if outcomes["better"] == len(random) else "Mostly"


def _count_outcomes(compared: Sequence[Comparison], other: str) -> str:
    """How often each outcome occurs; the first in full, the others in brackets."""
    outcomes = Counter(each.outcome for each in compared)
    words: dict[Outcome, tuple[str, str]] = {
        "better": (f"better than {other}", "better"),
        "worse": (f"worse than {other}", "worse"),
        "undecided": (f"no clear difference from {other}", "no clear difference"),
        "no interval": (f"no interval against {other}", "no interval"),
    }
    first, *others = [outcome for outcome in words if outcomes[outcome]]
    whole = f"of {format_count(len(compared), 'comparison')}"
    rest = ", ".join(f"{words[outcome][1]} in {outcomes[outcome]}" for outcome in others)
    return f"{words[first][0]} in {outcomes[first]} {whole}" + (f" ({rest})" if rest else "")


def _mean_tendency(compared: Sequence[Comparison]) -> str:
    """In how many comparisons the mean is higher, where there is no interval."""
    random = _compared_with(compared, RANDOM)
    higher = sum(each.mean is not None and each.mean > 0 for each in random)
    whole = format_count(len(random), "comparison")
    return f"mean scores were higher than those of random weights in {higher} of {whole}"
