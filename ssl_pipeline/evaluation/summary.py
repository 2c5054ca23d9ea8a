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
from ssl_pipeline.evaluation.cells import BASELINE, PIXELS, UNTRAINED, Cell
from ssl_pipeline.evaluation.config import Evaluate
from ssl_pipeline.evaluation.metrics import Scored
from ssl_pipeline.evaluation.statistics import (
    FEWEST,
    Draws,
    Table,
    draw,
    interval,
    metric,
    per_seed,
    resampled,
)
from ssl_pipeline.evaluation.tasks import TaskConfig


@dataclass(frozen=True)
class _Arm:
    """One row of the table: a method from one start with one budget, over its seeds."""

    total: Table  # (seeds, subjects, classes)
    count: Table
    extras: Mapping[str, float]


def summarise(
    task: TaskConfig,
    scored: Mapping[Cell, Scored],
    evaluate: Evaluate,
    *,
    train: Sequence[str],
    test: Sequence[str],
    starts: Sequence[str],
    seed: int,
    failed: Mapping[Cell, str] | None = None,
    notes: Sequence[str] = (),
    warning: str = "",
) -> dict[str, Any]:
    """The table of a task, as `results.json` holds it; rows in the order of `starts`.

    A row of which a seed has `failed`, with its reason, has no figures.
    """
    lost = failed or {}
    gaps = {(cell.method, cell.init, cell.subjects) for cell in lost}
    whole = {c: s for c, s in scored.items() if (c.method, c.init, c.subjects) not in gaps}
    arms = _arms(whole, starts)
    seeds = 1 + max(cell.seed for cell in (*scored, *lost))
    enough = len(test) >= FEWEST
    draws = draw(len(test), seeds, evaluate.bootstrap, seed) if enough else None
    few = (
        []
        if enough
        else [
            f"Too few subjects are scored for an interval, {len(test)}: only the spread over seeds "
            "is shown."
        ]
    )
    return {
        "task": task.title,
        "kind": task.kind,
        "metric": task.METRIC,
        "split": evaluate.split,
        "confidence": evaluate.confidence,
        "n_train_subjects": len(train),
        "n_test_subjects": len(test),
        "n_seeds": seeds,
        "classes": list(task.names),
        "starts": list(starts),
        "rows": [
            {"method": method, "init": init, "subjects": subjects}
            | _row(arm, task.names, draws, evaluate.confidence)
            for (method, init, subjects), arm in arms.items()
        ],
        "differences": _differences(arms, starts, draws, evaluate.confidence),
        "failed": [asdict(cell) | {"reason": reason} for cell, reason in lost.items()],
        "note": " ".join([*few, *notes, *_why(lost)]),
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


def _arms(scored: Mapping[Cell, Scored], starts: Sequence[str]) -> dict[tuple[str, str, int], _Arm]:
    """Cells gathered over seeds, methods together and budgets rising, all (0) last."""
    found: dict[tuple[str, str, int], list[Scored]] = {}
    for cell in sorted(scored, key=lambda c: c.seed):
        found.setdefault((cell.method, cell.init, cell.subjects), []).append(scored[cell])
    ordered = sorted(found, key=lambda k: (k[0], k[2] or math.inf, starts.index(k[1])))
    return {
        name: _Arm(
            np.stack([s.total for s in found[name]]),
            np.stack([s.count for s in found[name]]),
            {
                extra: float(np.mean([s.extras[extra] for s in found[name]]))
                for extra in found[name][0].extras
            },
        )
        for name in ordered
    }


def _row(arm: _Arm, names: Sequence[str], draws: Draws | None, confidence: float) -> dict[str, Any]:
    each = per_seed(arm.total, arm.count)
    classes = [
        metric(
            arm.total[:, :, i : i + 1].sum(axis=1), arm.count[:, :, i : i + 1].sum(axis=1)
        ).mean()
        for i in range(len(names))
    ]
    return {
        "mean": number(each.mean()),
        # Deviations of seeds are scaled up, which could carry a bound beyond the end of the scale.
        **bounds(
            None if draws is None else resampled(arm.total, arm.count, draws).clip(0, 1), confidence
        ),
        "sd_seeds": number(each.std(ddof=1)),
        "per_seed": [number(value) for value in each],
        "per_class": {name: number(value) for name, value in zip(names, classes, strict=True)},
        **{name: number(value) for name, value in arm.extras.items()},
    }


def _differences(
    arms: Mapping[tuple[str, str, int], _Arm],
    starts: Sequence[str],
    draws: Draws | None,
    confidence: float,
) -> list[dict[str, Any]]:
    """Each encoder less those before it and less what is untrained, paired by subject and seed."""
    found = []
    for (method, init, subjects), arm in arms.items():
        for against, other in _others(arms, starts, method, init, subjects):
            apart = per_seed(arm.total, arm.count) - per_seed(other.total, other.count)
            values = (
                None
                if draws is None
                else (
                    resampled(arm.total, arm.count, draws)
                    - resampled(other.total, other.count, draws)
                )
            )
            found.append(
                {"method": method, "init": init, "subjects": subjects, "against": against}
                | {"mean": number(apart.mean()), **bounds(values, confidence)}
            )
    return found


def _others(
    arms: Mapping[tuple[str, str, int], _Arm],
    starts: Sequence[str],
    method: str,
    init: str,
    subjects: int,
) -> Iterator[tuple[str, _Arm]]:
    """What an encoder is compared with: the same method, and pixels by whichever reads them."""
    if init in UNTRAINED:
        return
    for other in (*UNTRAINED, *starts[: starts.index(init)]):
        shared = (BASELINE if other == PIXELS else method, other, subjects)
        arm = arms.get((method, other, subjects)) or arms.get(shared)
        if arm is not None:  # a trial of an ablation has none; others have
            yield other, arm


def bounds(values: NDArray[np.float64] | None, confidence: float) -> dict[str, float | None]:
    """The ends of an interval as results hold them; nothing where there is none."""
    low, high = (math.nan, math.nan) if values is None else interval(values, confidence)
    return {"low": number(low), "high": number(high)}


def number(value: float) -> float | None:
    """As JSON can say it: six digits, and nothing where a figure is not defined."""
    return None if math.isnan(value) else round(float(value), 6)
