"""Where the encoder must not be used, as far as this study can tell: one sentence each.

What was tried and failed comes first, then what nobody tried.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ssl_pipeline.evaluation.cells import RANDOM, UNTRAINED
from ssl_pipeline.report.degradation import CORRUPTIONS
from ssl_pipeline.report.judgements import Judgement, Row, method_name, start_name
from ssl_pipeline.report.numerals import count, score
from ssl_pipeline.report.verdict import Comparison
from ssl_pipeline.store.catalog import Catalog

LOST = 0.1  # of a score, from which on a corruption is named


def limits(
    judged: Mapping[str, Sequence[Judgement]], worse: Mapping[str, Row], catalog: Catalog | None
) -> list[str]:
    """All that is known to speak against using the encoder somewhere.

    `judged` has what scored each task, `worse` what it scored on worse scans, if it was tried.
    """
    found = []
    for task, judgements in judged.items():
        if judgements:
            title = judgements[0].results["task"]
            found += [f"{title}: {sentence}" for sentence in _lost(judgements)]
            found += [f"{title}: {sentence}" for sentence in _groups(judgements)]
            found += [f"{title}: {sentence}" for sentence in _lost_to(worse.get(task))]
    return [*found, *(_untried(catalog) if catalog else ())]


def _lost(judgements: Sequence[Judgement]) -> Iterator[str]:
    """Comparisons that an encoder lost."""
    lost: dict[tuple[str, str], list[str]] = {}
    for each in judgements:
        for row in each.results["differences"]:
            own = Comparison(**row)
            if own.outcome == "worse" and own.against in UNTRAINED:
                words = f"{method_name(own.method)} of {each.budget(own.subjects)}"
                lost.setdefault((own.init, own.against), []).append(words)
    for (init, against), ways in lost.items():
        yield f"{init} is worse than {start_name(against)} in {', '.join(ways)} labelled subjects."


def _groups(judgements: Sequence[Judgement]) -> Iterator[str]:
    """Groups that fare worse than others, with most labels."""
    for each in judgements:
        for gap in each.results.get("gaps", ()):
            largest = gap["subjects"] == each.budgets(gap["method"])[-1]
            sure = gap["low"] is not None and gap["low"] > 0
            if largest and sure and gap["init"] not in UNTRAINED:
                yield (
                    f"{gap['init']}, {method_name(gap['method'])}: of {gap['group']}, "
                    f"{gap['worst']} is {score(gap['mean'])} behind {gap['best']}."
                )


def _lost_to(worse: Row | None) -> Iterator[str]:
    """Corruptions by which an encoder loses a tenth of the score or more."""
    for row in worse["rows"] if worse else ():
        clean = row["severities"][0]["mean"]
        if row["init"] == RANDOM or clean is None:
            continue
        first = {kind: _first_lost(points, clean) for kind, points in row["corruptions"].items()}
        told = [f"{CORRUPTIONS[kind]} from severity {s}" for kind, s in first.items() if s]
        if told:
            yield (
                f"{row['init']}, {method_name(row['method'])}: loses {score(LOST)} or more to "
                f"{', '.join(told)}."
            )


def _first_lost(points: Iterable[Mapping[str, Any]], clean: float) -> int | None:
    severities = (
        p["severity"] for p in points if p["mean"] is not None and clean - p["mean"] > LOST
    )
    return next(severities, None)


def _untried(catalog: Catalog) -> Iterator[str]:
    """What the stored volumes are, beyond which nothing is known."""
    for modality in sorted({entry.modality for entry in catalog.entries}):
        own = [entry for entry in catalog.entries if entry.modality == modality]
        spacing = [value for entry in own for value in entry.spacing_mm]
        roots = ", ".join(sorted({entry.root for entry in own}))
        yield (
            f"Nothing is known beyond what was seen: of {modality}, {count(len(own), 'scan')} of "
            f"{roots}, voxels of {min(spacing):.2g} to {max(spacing):.2g} mm."
        )
    yield "No figure here is of a patient's benefit; none of it is for diagnosis."
