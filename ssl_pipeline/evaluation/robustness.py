"""How judgements hold when scans are taken worse: scores at every corruption and severity.

What has been judged with most labels is judged again on the scored subjects' scans, made worse:
probes are fitted once more on clean features, and the networks of fine-tuning are those that were
kept. Every way of judging sees the same worse scans. The corruption error is the error at all
severities over that of random weights with the same method, a mean over corruptions (Hendrycks &
Dietterich 2019, arXiv:1903.12261; of medical images, di Salvo et al. 2024, arXiv:2406.17536): below
1 an encoder holds better than none.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_pipeline.atomic import read_json, sha256_json, write_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import FAILED, PIXELS, RANDOM, Cell
from ssl_pipeline.evaluation.class_cells import ClassCells
from ssl_pipeline.evaluation.config import Finetune, Probe, Robustness
from ssl_pipeline.evaluation.corrupted import corrupted
from ssl_pipeline.evaluation.corruptions import CorruptionConfig
from ssl_pipeline.evaluation.crops import Volumes
from ssl_pipeline.evaluation.estimates import Estimate, number
from ssl_pipeline.evaluation.finetune import section_of
from ssl_pipeline.evaluation.metrics import LIMITS, Measured, scored
from ssl_pipeline.evaluation.plan import Plan, Setting
from ssl_pipeline.evaluation.probes.fitted import Fitted
from ssl_pipeline.evaluation.tasks import RegionTask, TaskConfig
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.progress import progress

CLEAN = "clean"


@dataclass(frozen=True)
class Judge:
    """What scores some cells on volumes, as they are or worse."""

    cells: tuple[Cell, ...]
    score: Callable[[Volumes], dict[Cell, Measured]]


@dataclass(frozen=True)
class Tried:
    """What is tried, and on what."""

    robustness: Robustness
    probe: Probe
    finetune: Finetune
    preprocess: Preprocess
    networks: Path  # folder of the task's fine-tuning, with the networks that it kept


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
    judges, notes = _judges(plan, tried)
    cells = [asdict(cell) for judge in judges for cell in judge.cells]
    judged = [plan.truth, *_sections(tried), dict(setting.starts), cells]
    found: dict[str, dict[Cell, Measured]] = {}
    todo: list[tuple[CorruptionConfig, int] | None] = [None, *conditions]
    with progress(f"Robustness: {task.title}", total=len(todo)) as bar:
        for condition in todo:
            name, level, volumes = _condition(plan, tried, condition)
            key, path = sha256_json([level, *judged]), setting.out / "conditions" / f"{name}.json"
            content = read_json(path) if path.exists() else {}
            if content.get("key") != key:
                scores = {
                    cell: own for judge in judges for cell, own in judge.score(volumes).items()
                }
                content = {"key": key, "scores": [_row(*pair) for pair in scores.items()]}
                write_json(path, content)
            found[name] = dict(_cell(row) for row in content["scores"])
            bar.advance(name)
    results = _results(plan, tried.robustness, conditions, found, notes)
    write_json(setting.out / "results.json", results)
    return results


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
    finetune = tried.finetune.model_copy(update={"seeds": None, "subjects": None})
    parts = (tried.probe, finetune, tried.preprocess)
    return [part.model_dump(mode="json") for part in parts]


def _row(cell: Cell, own: Measured) -> dict[str, Any]:
    parts = [round(float(part), 6) for part in own.parts]
    return {**asdict(cell), "value": round(own.value, 6), "parts": parts}


def _cell(row: dict[str, Any]) -> tuple[Cell, Measured]:
    cell = Cell(row["method"], row["init"], row["subjects"], row["seed"])
    return cell, Measured(row["value"], np.array(row["parts"]))


def _judges(plan: Plan, tried: Tried) -> tuple[list[Judge], list[str]]:
    """All that judged the task with most labels, and what has to be said of it."""
    evaluate, encoders = plan.setting.evaluate, [s for s in plan.setting.starts if s != PIXELS]
    cells = ClassCells(plan, plan.task) if isinstance(plan.task, RegionTask) else None
    judges: list[Judge] = []
    if cells:
        most = plan.budgets(evaluate.subjects)[-1]
        seeds = range(evaluate.seeds)
        for start in encoders:  # seeds share the features of a trained encoder
            alike = [[seed] for seed in seeds] if start == RANDOM else [list(seeds)]
            judges += [_probes(cells, tried.probe, start, most, each) for each in alike]
    left = []
    for method in tried.finetune.methods:
        if cells or method.VOXELS:
            for start in encoders:
                own = _networks(plan, tried, method, start)
                if not own:
                    left.append(f"{method.TITLE} from {start}")
                judges += [_network(plan, cells, tried, method, cell) for cell in own]
    notes = [f"Left out, for cells of it failed: {', '.join(left)}."] if left else []
    return judges, notes


def _networks(plan: Plan, tried: Tried, method: AdaptationMethod, start: str) -> list[Cell]:
    """The cells of a row with most labels; none where one failed.

    Raises UserError where fine-tuning has not kept their networks, or kept those of other dials.
    """
    finetune, evaluate = tried.finetune, plan.setting.evaluate
    budgets = plan.budgets(finetune.subjects or evaluate.subjects)
    seeds = range(finetune.seeds or evaluate.seeds)
    cells = [Cell(method.name, start, budgets[-1], seed) for seed in seeds]
    for cell in cells:
        path = cell.path(tried.networks)
        content = read_json(path) if path.exists() else {}
        if content.get("key") != plan.key(cell, section_of(finetune, budgets, cell, method)):
            raise UserError(
                f"Fine-tuning has not kept the network of {cell.name} for the present dials: set "
                "finetune.keep_networks, and run the stage finetune again."
            )
        if FAILED in content:
            return []
    return cells


def _network(
    plan: Plan, cells: ClassCells | None, tried: Tried, method: AdaptationMethod, cell: Cell
) -> Judge:
    """A network that was kept."""
    if cells:
        return _classifier(cells, tried, method, cell)
    assert isinstance(plan.task, Segmentation)
    return _segmenter(plan, plan.task, tried, method, cell)


def _probes(
    cells: ClassCells, probe: Probe, start: str, subjects: int, seeds: Sequence[int]
) -> Judge:
    """Simple classifiers on the features of one encoder, fitted when they are first asked."""
    setting, fitted = cells.plan.setting, dict[Cell, Fitted]()
    own = {Cell(m.name, start, subjects, seed): m for seed in seeds for m in probe.methods}

    def score(volumes: Volumes) -> dict[Cell, Measured]:
        from ssl_pipeline.evaluation.features import features

        encoder = setting.encoder_of(start, setting.seed + seeds[0])
        if not fitted:
            train = features(encoder, cells.crops(cells.train, probe.batch), setting.device)
            for cell, method in own.items():
                chosen = cells.chosen(cell)
                targets, subjects_of = cells.targets[chosen], cells.subjects[chosen]
                known = (train[chosen], targets, subjects_of, len(cells.plan.task.names), cell.seed)
                fitted[cell] = method.fit(*known)
        crops = cells.crops(cells.test, probe.batch, volumes)
        seen = features(encoder, crops, setting.device)
        return {cell: _scored(cells, predict(seen)) for cell, predict in fitted.items()}

    return Judge(tuple(own), score)


def _classifier(cells: ClassCells, tried: Tried, method: AdaptationMethod, cell: Cell) -> Judge:
    """A network for classes that was kept."""

    def score(volumes: Volumes) -> dict[Cell, Measured]:
        from ssl_pipeline.evaluation.classify import predict
        from ssl_pipeline.evaluation.networks import classifier, kept

        device = cells.plan.setting.device
        network = kept(classifier(cells.plan, cell, method), method, cell, tried.networks)
        crops = cells.crops(cells.test, tried.finetune.batch, volumes)
        return {cell: _scored(cells, predict(network.to(device), crops, device))}

    return Judge((cell,), score)


def _segmenter(
    plan: Plan, task: Segmentation, tried: Tried, method: AdaptationMethod, cell: Cell
) -> Judge:
    """A network for voxels that was kept."""

    def score(volumes: Volumes) -> dict[Cell, Measured]:
        from ssl_pipeline.evaluation.networks import kept, segmenter
        from ssl_pipeline.evaluation.voxel_cells import VoxelCells

        built = segmenter(plan, cell, method, tried.finetune)
        network = kept(built, method, cell, tried.networks).to(plan.setting.device)
        voxels = VoxelCells(plan, task, tried.finetune)
        return {cell: _main(plan, voxels.overlaps(network, volumes))}

    return Judge((cell,), score)


def _scored(cells: ClassCells, probability: Any) -> Measured:
    return _main(cells.plan, cells.rows(probability))


def _main(plan: Plan, rows: Sequence[dict[str, Any]]) -> Measured:
    """The task's own metric of predictions."""
    return next(iter(scored(plan.cohort.test, rows).measures.values()))


@dataclass(frozen=True)
class _Found:
    """Scores by condition, and what is told of them."""

    scores: dict[str, dict[Cell, Measured]]
    robustness: Robustness
    metric: str
    confidence: float

    def row(self, method: str, init: str, kinds: Sequence[str]) -> dict[str, Any]:
        """A way of judging from one start, over severities, by corruption, and against none."""
        severities = self.robustness.severities
        curve = {0: [CLEAN]} | {s: [f"{kind}-{s}" for kind in kinds] for s in severities}
        errors = {
            kind: self._error(method, init, kind) / own
            for kind in kinds
            if (own := self._error(method, RANDOM, kind)) > 0
        }
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
            "corruption_errors": {kind: number(ratio) for kind, ratio in errors.items()},
            "corruption_error": number(float(np.mean(list(errors.values() or [np.nan])))),
        }

    def _seeds(self, method: str, init: str, name: str) -> list[Measured]:
        scores = self.scores[name].items()
        return [own for cell, own in scores if (cell.method, cell.init) == (method, init)]

    def _told(self, method: str, init: str, names: Sequence[str]) -> dict[str, Any]:
        """Mean and interval over seeds, each a mean over conditions."""
        drawn = zip(*(self._seeds(method, init, name) for name in names), strict=True)
        estimate = Estimate.averaged([list(each) for each in drawn])
        return estimate.told(self.confidence, LIMITS[self.metric])

    def _error(self, method: str, init: str, kind: str) -> float:
        """What is missing to 1, summed over severities and seeds; 0 where nobody was judged so."""
        names = (f"{kind}-{severity}" for severity in self.robustness.severities)
        return sum((1 - own.value for n in names for own in self._seeds(method, init, n)), 0.0)


def _results(
    plan: Plan,
    robustness: Robustness,
    conditions: Sequence[tuple[CorruptionConfig, int]],
    scores: dict[str, dict[Cell, Measured]],
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
        "rows": [found.row(method, init, kinds) for method, init in ways],
        "note": " ".join(notes),
        "warning": plan.setting.warning,
    }
