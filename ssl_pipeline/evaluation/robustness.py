"""How judgements hold when scans are taken worse: scores at every corruption and severity.

What encoders and random weights were judged by with most labels is judged again on the scored
subjects' scans, made worse: probes are fitted once more on clean features, and the networks of
fine-tuning are those that were kept. Every way of judging sees the same worse scans. The corruption
error is the error at all severities over that of random weights with the same method, a mean over
corruptions (Hendrycks & Dietterich 2019, arXiv:1903.12261; of medical images, di Salvo et al. 2024,
arXiv:2406.17536): below 1 an encoder holds better than none.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl_pipeline.atomic import read_json, sha256_json, write_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import RANDOM, Cell
from ssl_pipeline.evaluation.config import Robustness
from ssl_pipeline.evaluation.corrupted import corrupted
from ssl_pipeline.evaluation.corruptions import CorruptionConfig
from ssl_pipeline.evaluation.crops import Volumes
from ssl_pipeline.evaluation.estimates import Estimate, number
from ssl_pipeline.evaluation.judges import OUTLIERS, STABILITY, Tried, judges
from ssl_pipeline.evaluation.looks import note_look
from ssl_pipeline.evaluation.metrics import LIMITS, Measured
from ssl_pipeline.evaluation.plan import KEPT, Plan, Setting
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.progress import progress

CLEAN = "clean"
LIMITS_OF_FEATURES = {OUTLIERS: LIMITS["AUC"], STABILITY: None}


def run_robustness(task: TaskConfig, tried: Tried, setting: Setting) -> dict[str, Any]:
    """Judge a task on worse scans; write `conditions/` and `results.json` below `setting.out`.

    Returns what `results.json` holds. Conditions that are there with the same key are not computed
    again. Raises UserError where a network was not kept.
    """
    plan = Plan(task, setting)
    conditions = tried.robustness.conditions({entry.modality for entry in plan.cohort.entries})
    if not conditions:
        raise UserError(
            f"Task {task.title!r}: none of robustness.corruptions is of its scans' modality."
        )
    panel, notes = judges(plan, tried)
    cells = [asdict(cell) for judge in panel for cell in judge.cells]
    asked_of = [plan.truth, *_sections(tried), dict(setting.starts)]
    judged = [*asked_of, cells]
    found: dict[str, dict[Cell, Measured]] = {}
    todo: list[tuple[CorruptionConfig, int] | None] = [None, *conditions]
    with progress(f"Robustness: {task.title}", total=len(todo)) as bar:
        for condition in todo:
            name, level, volumes = _condition(plan, tried, condition)
            asked = [partial(judge.score, volumes) for judge in panel]
            found[name] = _kept(setting.out, name, [level, *judged], asked)
            bar.advance(name)
    note_look(setting.out, setting.evaluate.split, sha256_json(asked_of))
    groups = [[group.name, group.value, sorted(group.scans)] for group in plan.groups]
    shares = _kept(setting.out, "groups", [groups, *judged], [judge.shares for judge in panel])
    results = _results(plan, tried.robustness, conditions, found, shares, notes)
    write_json(setting.out / "results.json", results)
    return results


def _kept(
    out: Path, name: str, about: list[Any], asked: Sequence[Callable[[], dict[Cell, Measured]]]
) -> dict[Cell, Measured]:
    """What all that are asked score, from the file where that is of the same key."""
    key, path = sha256_json(about), out / "conditions" / f"{name}.json"
    content = read_json(path) if path.exists() else {}
    if content.get("key") != key:
        scores = [pair for each in asked for pair in each().items()]
        content = {"key": key, "scores": [_row(*pair) for pair in scores]}
        write_json(path, content)
    return dict(_cell(row) for row in content["scores"])


def _condition(
    plan: Plan, tried: Tried, condition: tuple[CorruptionConfig, int] | None
) -> tuple[str, float | None, Volumes]:
    """Name, level and volumes; volumes that were made worse go with them, for they are large."""
    if condition is None:
        return CLEAN, None, plan.volumes
    corruption, severity = condition
    seed = plan.setting.seed
    volumes = corrupted(plan.volumes, corruption, severity, tried.preprocess, seed)
    return f"{corruption.name}-{severity}", corruption.LEVELS[severity - 1], volumes


def _sections(tried: Tried) -> list[dict[str, Any]]:
    """What scores depend on, and not how predictions are kept."""
    parts = (tried.probe, tried.finetune.of(*tried.finetune.methods), tried.preprocess)
    return [part.model_dump(mode="json", exclude=KEPT) for part in parts]


def _row(cell: Cell, own: Measured) -> dict[str, Any]:
    return {**asdict(cell), "value": number(own.value), "parts": [number(p) for p in own.parts]}


def _cell(row: dict[str, Any]) -> tuple[Cell, Measured]:
    cell = Cell(row["method"], row["init"], row["subjects"], row["seed"])
    value, *parts = np.array([row["value"], *row["parts"]], np.float64)  # null becomes nan
    return cell, Measured(float(value), np.array(parts))


@dataclass(frozen=True)
class _Found:
    """Scores by condition, and what is told of them."""

    scores: dict[str, dict[Cell, Measured]]
    robustness: Robustness
    metric: str
    confidence: float

    def row(self, method: str, init: str, kinds: Sequence[str]) -> dict[str, Any]:
        """A way of judging from one start, over severities, by corruption, and against none."""
        errors = {
            kind: self._error(method, init, kind) / own
            for kind in kinds
            if (own := self._error(method, RANDOM, kind)) > 0
        }
        return {
            **self.curve(method, init, kinds),
            "corruption_errors": {kind: number(ratio) for kind, ratio in errors.items()},
            "corruption_error": number(float(np.mean(list(errors.values() or [np.nan])))),
        }

    def curve(self, method: str, init: str, kinds: Sequence[str]) -> dict[str, Any]:
        """A figure over severities, and by corruption."""
        severities = self.robustness.severities
        curve = {0: [CLEAN]} | {s: [f"{kind}-{s}" for kind in kinds] for s in severities}
        return {
            "method": method,
            "init": init,
            "severities": [
                {"severity": s, **self._told(method, init, names)} for s, names in curve.items()
            ],
            "corruptions": {
                kind: [
                    {"severity": s, **self._told(method, init, [f"{kind}-{s}"])} for s in severities
                ]
                for kind in kinds
            },
        }

    def _seeds(self, method: str, init: str, name: str) -> list[Measured]:
        scores = self.scores[name].items()
        return [own for cell, own in scores if (cell.method, cell.init) == (method, init)]

    def _told(self, method: str, init: str, names: Sequence[str]) -> dict[str, Any]:
        """Mean and interval over seeds, each a mean over conditions."""
        drawn = zip(*(self._seeds(method, init, name) for name in names), strict=True)
        estimate = Estimate.averaged([list(each) for each in drawn])
        limits = LIMITS_OF_FEATURES.get(method, LIMITS[self.metric])
        return estimate.told(self.confidence, limits)

    def _error(self, method: str, init: str, kind: str) -> float:
        """What is missing to 1, summed over severities and seeds; 0 where nobody was judged so."""
        names = (f"{kind}-{severity}" for severity in self.robustness.severities)
        return sum((1 - own.value for n in names for own in self._seeds(method, init, n)), 0.0)


def _results(
    plan: Plan,
    robustness: Robustness,
    conditions: Sequence[tuple[CorruptionConfig, int]],
    scores: dict[str, dict[Cell, Measured]],
    shares: dict[Cell, Measured],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Scores of every row at every condition, their curve over severities, and their error."""
    task, evaluate = plan.task, plan.setting.evaluate
    kinds = list(dict.fromkeys(corruption.name for corruption, _ in conditions))
    found = _Found(scores, robustness, task.METRIC, evaluate.confidence)
    ways = dict.fromkeys((cell.method, cell.init) for cell in scores[CLEAN])
    return {
        "task": task.title,
        "kind": task.kind,
        "metric": task.METRIC,
        "split": evaluate.split,
        "confidence": evaluate.confidence,
        "n_test_subjects": len(plan.cohort.test),
        "starts": list(plan.setting.starts),
        "rows": [found.row(*way, kinds) for way in ways if way[0] not in LIMITS_OF_FEATURES],
        "shares": list(_shares(shares, evaluate.confidence)),
        "features": [found.curve(*way, kinds) for way in ways if way[0] in LIMITS_OF_FEATURES],
        "notes": list(notes),
        "warning": plan.setting.warning,
    }


def _shares(found: dict[Cell, Measured], confidence: float) -> Iterator[dict[str, Any]]:
    """How much of the differences between subjects each grouping is, by encoder."""
    for name, init in dict.fromkeys((cell.method, cell.init) for cell in found):
        seeds = [own for cell, own in found.items() if (cell.method, cell.init) == (name, init)]
        yield {"group": name, "init": init, **Estimate.of(seeds).told(confidence)}
