"""From the cells of a task to its table: `results.json`, and `costs.json` for what varies by run.

The table is a function of the predictions alone and is equal byte by byte when they are. Seconds
are kept apart from it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.atomic import write_json
from ssl_pipeline.evaluation.cells import UNTRAINED, Cell, beside
from ssl_pipeline.evaluation.config import Evaluate
from ssl_pipeline.evaluation.estimates import Estimate, number
from ssl_pipeline.evaluation.groups import Group, gap
from ssl_pipeline.evaluation.metrics import LIMITS, Scored
from ssl_pipeline.evaluation.statistics import caution
from ssl_pipeline.evaluation.tasks import TaskConfig

Name = tuple[str, str, int]  # of a row: method, start, labelled subjects


@dataclass(frozen=True)
class _Arm:
    """One row of the table: a method from one start with one budget, over its seeds."""

    measures: Mapping[str, Estimate]  # the task's own metric first
    per_class: NDArray[np.float64]  # (classes,) of that metric

    @property
    def shows(self) -> int:
        """How many classes its scored subjects show; 1 or 0 where a number is told, or is not."""
        if not len(self.per_class):
            return int(not math.isnan(self.main.per_seed.mean()))
        return int(np.count_nonzero(~np.isnan(self.per_class)))

    @property
    def main(self) -> Estimate:
        """The task's own metric."""
        return next(iter(self.measures.values()))


def summarise(
    task: TaskConfig,
    scored: Mapping[Cell, Scored],
    evaluate: Evaluate,
    *,
    train: Sequence[str],
    test: Sequence[str],
    starts: Sequence[str],
    seed: int,
    by_group: Mapping[Group, Mapping[Cell, Scored]] | None = None,
    failed: Mapping[Cell, str] | None = None,
    notes: Sequence[str] = (),
    warning: str = "",
) -> dict[str, Any]:
    """The table of a task, as `results.json` holds it; rows in the order of `starts`.

    A row of which a seed has `failed`, with its reason, has no figures.
    """
    lost = failed or {}
    gaps = {(cell.method, cell.init, cell.subjects) for cell in lost}

    def whole(scored: Mapping[Cell, Scored]) -> dict[Cell, Scored]:
        return {c: s for c, s in scored.items() if (c.method, c.init, c.subjects) not in gaps}

    arms = _arms(whole(scored), starts)
    grouped = {group: _arms(whole(own), starts) for group, own in (by_group or {}).items() if own}
    return {
        "task": task.title,
        "kind": task.kind,
        "metric": task.METRIC,
        "split": evaluate.split,
        "confidence": evaluate.confidence,
        "n_train_subjects": len(train),
        "n_test_subjects": len(test),
        "n_seeds": 1 + max(cell.seed for cell in (*scored, *lost)),
        "classes": list(task.names),
        "starts": list(starts),
        "rows": [
            {"method": method, "init": init, "subjects": subjects}
            | _row(arm, task.names, evaluate.confidence)
            for (method, init, subjects), arm in arms.items()
        ],
        "differences": list(_differences(arms, starts, evaluate.confidence, seed)),
        "groups": [_group(group, own, task.names, evaluate) for group, own in grouped.items()],
        "gaps": list(_gaps(arms, grouped, evaluate.confidence)),
        "failed": [asdict(cell) | {"reason": reason} for cell, reason in lost.items()],
        "notes": [caution(len(test)), *notes, *_why(lost)],
        "warning": warning,
    }


def _why(lost: Mapping[Cell, str]) -> Iterator[str]:
    """Each reason once, with the first of the cells that it holds for."""
    for reason in dict.fromkeys(lost.values()):
        names = [cell.name for cell, why in lost.items() if why == reason]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{names[0]}{more} failed: {reason}."


def write(out: Path, results: dict[str, Any], costs: Sequence[Mapping[str, Any]]) -> None:
    """Write `results.json` and `costs.json`."""
    write_json(out / "costs.json", list(costs))
    write_json(out / "results.json", results)


def _arms(scored: Mapping[Cell, Scored], starts: Sequence[str]) -> dict[Name, _Arm]:
    """Cells gathered over seeds, methods together and budgets rising, all (0) last."""
    found: dict[Name, list[Scored]] = {}
    for cell in sorted(scored, key=lambda c: c.seed):
        found.setdefault((cell.method, cell.init, cell.subjects), []).append(scored[cell])
    ordered = sorted(found, key=lambda k: (k[0], k[2] or math.inf, starts.index(k[1])))
    return {
        name: _Arm(
            {key: Estimate.of([s.measures[key] for s in found[name]]) for key in measures},
            np.mean([s.per_class for s in found[name]], axis=0),
        )
        for name in ordered
        for measures in [found[name][0].measures]
    }


def _row(arm: _Arm, names: Sequence[str], confidence: float) -> dict[str, Any]:
    own, *further = arm.measures
    return {
        **arm.main.told(confidence, LIMITS[own]),
        **arm.main.spread(),
        "per_class": {
            name: number(value) for name, value in zip(names, arm.per_class, strict=True)
        },
        "further": {key: arm.measures[key].told(confidence, LIMITS[key]) for key in further},
    }


def _group(
    group: Group, arms: Mapping[Name, _Arm], names: Sequence[str], evaluate: Evaluate
) -> dict[str, Any]:
    """A group's own table."""
    return {
        "group": group.name,
        "value": group.value,
        "n_test_subjects": len(group.subjects),
        "rows": [
            {"method": method, "init": init, "subjects": subjects}
            | _row(arm, names, evaluate.confidence)
            for (method, init, subjects), arm in arms.items()
        ],
    }


def _gaps(
    arms: Mapping[Name, _Arm],
    grouped: Mapping[Group, Mapping[Name, _Arm]],
    confidence: float,
) -> Iterator[dict[str, Any]]:
    """How far apart the groups of one name are, in each row.

    A group that lacks a class which others show has an easier task, and is left out.
    """
    for name in dict.fromkeys(group.name for group in grouped):
        for method, init, subjects in arms:
            key = (method, init, subjects)
            by_value = {
                group.value: own[key].main
                for group, own in grouped.items()
                if group.name == name and own[key].shows >= arms[key].shows
            }
            if len(by_value) > 1:
                row = {"group": name, "method": method, "init": init, "subjects": subjects}
                yield row | gap(by_value, confidence)


def _differences(
    arms: Mapping[Name, _Arm], starts: Sequence[str], confidence: float, seed: int
) -> Iterator[dict[str, Any]]:
    """Each encoder less those before it and less what is untrained, paired by subject and seed."""
    for (method, init, subjects), arm in arms.items():
        for against, other in _others(arms, starts, method, init, subjects):
            own, *further = arm.measures
            yield {
                "method": method,
                "init": init,
                "subjects": subjects,
                "against": against,
                **arm.measures[own].less(other.measures[own], confidence, seed),
                "further": {
                    key: arm.measures[key].less(other.measures[key], confidence, seed)
                    for key in further
                },
            }


def _others(
    arms: Mapping[Name, _Arm],
    starts: Sequence[str],
    method: str,
    init: str,
    subjects: int,
) -> Iterator[tuple[str, _Arm]]:
    """What an encoder is compared with: others by the same method, and the baselines."""
    if init in UNTRAINED:
        return
    for other in (*UNTRAINED, *starts[: starts.index(init)]):
        rows = (arms.get((own, other, subjects)) for own in beside(method, other))
        yield from ((other, arm) for arm in rows if arm)  # a trial of an ablation has none
