"""Results table of an ablation: all its arms, from the predictions of its trials.

Every arm was trained once for each seed; random weights and pixels are compared too. Intervals are
over the scored subjects and the seeds of training. Draws of labelled subjects share the encoder of
their seed, so they are averaged within it first: taken as seeds of their own they would make an
interval too narrow.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from ssl_pipeline.evaluation.cells import BASELINES, NOT_PRETRAINED, Cell, comparable_methods
from ssl_pipeline.evaluation.metrics.scores import RANGES, Predictions, ScoreFunction
from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate
from ssl_pipeline.io.atomic import read_json

ArmKey = tuple[str, str, int]  # arm, method, labelled subjects
RowType = TypeVar("RowType")


def ablation_table(
    trials: Mapping[str, Sequence[Path]], *, score: ScoreFunction, confidence: float, seed: int
) -> dict[str, Any]:
    """The table of one task and stage; `score` is the task's.

    `trials` has the folders of every arm, one a seed, in which a stage left `results.json` and its
    cells; those of random weights hold the baseline of pixels too.
    """
    first = read_json(next(iter(trials.values()))[0] / "results.json")
    found = _gather_predictions(trials)
    test = sorted({row["subject"] for seeds in found.values() for row in seeds[0][0]})
    scores = {key: _estimate(seeds, test, score) for key, seeds in found.items()}
    copied = ("task", "kind", "metric", "split", "n_train_subjects", "n_test_subjects", "notes")
    return {key: first[key] for key in copied} | {
        "n_seeds": len(next(iter(trials.values()))),
        "confidence": confidence,
        "warning": _warning(trials),
        "rows": list(_rows(scores, first["metric"], confidence)),
        "differences": list(_differences(scores, confidence, seed)),
    }


def _gather_predictions(
    trials: Mapping[str, Sequence[Path]],
) -> dict[ArmKey, list[list[Predictions]]]:
    """Predictions by arm, method and labelled subjects: for each seed, for each draw of labels.

    Rows of which a trial has none, for one of its cells failed, are left out.
    """
    found: dict[ArmKey, list[list[Predictions]]] = {}
    for arm, folders in trials.items():
        for folder in folders:
            for row in read_json(folder / "results.json")["rows"]:
                method, subjects = row["method"], row["subjects"]
                name = row["initialization"]
                cells = [Cell(method, name, subjects, s) for s in range(len(row["per_seed"]))]
                draws = [read_json(cell.path(folder))["predictions"] for cell in cells]
                key = (name if name in BASELINES else arm, method, subjects)
                found.setdefault(key, []).append(draws)
    each = len(next(iter(trials.values())))
    return {key: seeds for key, seeds in found.items() if len(seeds) == each}


def _estimate(
    seeds: Sequence[Sequence[Predictions]], test_subjects: Sequence[str], score: ScoreFunction
) -> MetricEstimate:
    """The estimate over seeds, each the mean over its draws of labelled subjects."""
    measured = [[score(test_subjects, draw).primary for draw in seed] for seed in seeds]
    return MetricEstimate.from_repeats(measured)


def _rows(
    scores: Mapping[ArmKey, MetricEstimate], metric: str, confidence: float
) -> Iterator[dict[str, Any]]:
    for (arm, method, subjects), own in scores.items():
        yield {
            "arm": arm,
            "method": method,
            "subjects": subjects,
            **own.mean_and_interval(confidence, RANGES[metric]),
            **own.seed_spread(),
        }


def find_row(
    rows: Mapping[ArmKey, RowType], arm: str, method: str, subjects: int
) -> RowType | None:
    """The row of an arm to compare with a method; None where there is none."""
    found = (rows.get((arm, own, subjects)) for own in comparable_methods(method, arm))
    return next((row for row in found if row), None)


def _differences(
    scores: Mapping[ArmKey, MetricEstimate], confidence: float, seed: int
) -> Iterator[dict[str, Any]]:
    """Differences from each earlier arm, random weights and the baselines, paired by seed."""
    arms = list(dict.fromkeys(arm for arm, _, _ in scores))
    trained = [arm for arm in arms if arm not in NOT_PRETRAINED]
    pairs = [(later, earlier) for earlier, later in combinations(trained, 2)]
    pairs += [(arm, other) for arm in trained for other in NOT_PRETRAINED]
    compared = dict.fromkeys((m, s) for arm, m, s in scores if arm in trained)
    for method, subjects in compared:
        for arm, against in pairs:
            own = scores.get((arm, method, subjects))
            other = find_row(scores, against, method, subjects)
            if own is not None and other is not None:
                yield {
                    "arm": arm,
                    "against": against,
                    "method": method,
                    "subjects": subjects,
                    **own.difference(other, confidence, seed),
                }


def _warning(trials: Mapping[str, Sequence[Path]]) -> str:
    """Warnings of the trials' own results, each once, and how many of their cells failed."""
    folders = [folder for own in trials.values() for folder in own]
    results = {folder: read_json(folder / "results.json") for folder in folders}
    warnings = [own["warning"] for own in results.values()]
    for arm, own in trials.items():
        for seed, folder in enumerate(own):
            failed = len(results[folder].get("failed", ()))
            warnings.append(f"Cells of {arm}-{seed} failed: {failed}." if failed else "")
    return " ".join(dict.fromkeys(filter(None, warnings)))
