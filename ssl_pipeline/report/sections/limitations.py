"""Limitations of the encoder that the study shows, one sentence each.

First what was evaluated with a bad result, then what was not evaluated.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ssl_pipeline.evaluation.cells import NOT_PRETRAINED, RANDOM
from ssl_pipeline.evaluation.records import RobustnessResults, SeverityScore
from ssl_pipeline.formatting import format_count, format_score
from ssl_pipeline.report.data.results import TaskResult, initialization_title, method_title
from ssl_pipeline.report.sections.robustness import CORRUPTION_TITLES
from ssl_pipeline.store.catalog import Catalog

MIN_SCORE_LOSS = 0.1  # of a score, from which on a corruption is named


def limitations(
    results_by_task: Mapping[str, Sequence[TaskResult]],
    robustness_by_task: Mapping[str, RobustnessResults],
    catalog: Catalog | None,
) -> list[str]:
    """All limitations of the encoder that the results show, and those of the dataset."""
    found = []
    for task, results in results_by_task.items():
        if results:
            title = results[0].results.task
            found += [f"{title}: {sentence}" for sentence in _lost_comparisons(results)]
            found += [f"{title}: {sentence}" for sentence in _subgroup_gaps(results)]
            found += [
                f"{title}: {sentence}"
                for sentence in _corruption_losses(robustness_by_task.get(task))
            ]
    return [*found, *(_dataset_limits(catalog) if catalog else ())]


def _lost_comparisons(results: Sequence[TaskResult]) -> Iterator[str]:
    """Comparisons in which an encoder is worse."""
    lost: dict[tuple[str, str], list[str]] = {}
    for each in results:
        for own in each.results.differences:
            if own.outcome == "worse" and own.against in NOT_PRETRAINED:
                words = f"{method_title(own.method)} of {each.budget_text(own.subjects)}"
                lost.setdefault((own.initialization, own.against), []).append(words)
    for (init, against), ways in lost.items():
        yield (
            f"{init} is worse than {initialization_title(against)} in {', '.join(ways)} labelled "
            "subjects."
        )


def _subgroup_gaps(results: Sequence[TaskResult]) -> Iterator[str]:
    """Groups with lower scores than others, with the most labelled subjects."""
    for each in results:
        for gap in each.results.gaps:
            is_largest = gap.subjects == each.largest_budget(gap.method)
            is_certain = gap.low is not None and gap.low > 0
            if is_largest and is_certain and gap.initialization not in NOT_PRETRAINED:
                yield (
                    f"{gap.initialization}, {method_title(gap.method)}: by {gap.attribute}, "
                    f"{gap.worst} is {format_score(gap.mean)} behind {gap.best}."
                )


def _corruption_losses(robustness: RobustnessResults | None) -> Iterator[str]:
    """Corruptions by which an encoder loses a tenth of the score or more."""
    for row in robustness.rows if robustness else ():
        clean = row.severities[0].mean
        if row.initialization == RANDOM or clean is None:
            continue
        first = {
            kind: _first_severity_lost(points, clean) for kind, points in row.corruptions.items()
        }
        lost = [f"{CORRUPTION_TITLES[kind]} from severity {s}" for kind, s in first.items() if s]
        if lost:
            yield (
                f"{row.initialization}, {method_title(row.method)}: loses "
                f"{format_score(MIN_SCORE_LOSS)} or more to {', '.join(lost)}."
            )


def _first_severity_lost(points: Iterable[SeverityScore], clean: float) -> int | None:
    severities = (
        point.severity
        for point in points
        if point.mean is not None and clean - point.mean > MIN_SCORE_LOSS
    )
    return next(severities, None)


def _dataset_limits(catalog: Catalog) -> Iterator[str]:
    """The range of the stored volumes, beyond which nothing was evaluated."""
    for modality in sorted({entry.modality for entry in catalog.entries}):
        own = [entry for entry in catalog.entries if entry.modality == modality]
        spacing = [value for entry in own for value in entry.spacing_mm]
        roots = ", ".join(sorted({entry.root for entry in own}))
        yield (
            f"Nothing is known beyond this dataset: of {modality}, "
            f"{format_count(len(own), 'scan')} of {roots}, voxels of "
            f"{min(spacing):.2g} to {max(spacing):.2g} mm."
        )
    yield "Clinical benefit was not evaluated; the encoder is not for diagnosis."
