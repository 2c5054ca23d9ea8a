"""Which scans to label next, as if labels were hidden: each strategy beside `random`.

`python -m tests.bench.next_labels` pretrains a small encoder on the training subjects of two public
data sets, pretends that none of these is labelled, and lets each strategy choose scans in rounds,
from the same two random ones. A linear probe on frozen features learns from the labels of what was
chosen, and is scored on the validation subjects; no test subject is used. Fine-tuned networks would
cost hours instead. The entropy of a scan is the probe's on its tokens, which need no label. A
curve's area is the mean of its rounds, whose numbers of labels double.
`workflows/studies/results/next.json` and `.md` get the results.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr

from ssl_pipeline.evaluation.data.features import extract_features
from ssl_pipeline.evaluation.metrics.scores import MetricValue
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.probes.predictor import LabelledFeatures, PredictFunction
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.crop_cells import CropCells
from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate
from ssl_pipeline.evaluation.tasks.crop_classification import CropClassification
from ssl_pipeline.export.bundle import load_encoder
from ssl_pipeline.formatting import format_difference, format_p_value, format_with_interval
from ssl_pipeline.io.atomic import write_json, write_text
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.review.next_labels import TITLES, LabelPool, strategy_named
from ssl_pipeline.views.rng import generator
from stages.core.runner import run_stage
from stages.core.study import Study
from stages.core.study_file import load_study
from stages.evaluation_inputs import evaluation_context

STUDY = Path("workflows/studies/openkbp_hippocampus.yaml")
OUT, RESULTS = Path("build/bench/next"), Path("workflows/studies/results/next.json")
STEPS, BATCH_SIZE = 150, 16  # of pretraining
ROUNDS, SEEDS = (2, 4, 8, 16, 32), 10  # labelled scans after each round
PROBE = Linear(c_values=(1.0,))  # the default strength, for two scans have no folds
MAX_TOKENS = 200  # of a scan, whose entropy is measured
CONFIDENCE = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="where the study is stored")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to write")
    words = parser.parse_args()
    torch.set_num_threads(1)
    study, started = prepare_study(words.out), time.process_time()
    rows: list[dict[str, Any]] = []
    for task in study.tasks:
        simulation = Simulation.of_task(study, task, words.out)
        curves = {name: simulation.curves(name) for name in TITLES}
        rows += [_row(task, name, curves) for name in TITLES]
    seconds = round(time.process_time() - started)
    write_json(words.results, {"rounds": ROUNDS, "seeds": SEEDS, "steps": STEPS, "rows": rows})
    write_text(words.results.with_suffix(".md"), _page(rows))
    print(f"{words.results} after {seconds} s of the processor")


def prepare_study(out: Path) -> Study:
    """The study with its encoder below `out`; both tasks are of crops, for probes."""
    whole = load_study(STUDY)
    parts = whole.tasks["parts"]
    tasks = {
        "organ": whole.tasks["organ"],
        "parts": CropClassification(
            title="Part of the hippocampus about the middle of an MR crop",
            label="parts",
            roots=parts.roots,
            classes=parts.classes,
            crops_per_class=4,
        ),
    }
    changes = {"steps": STEPS, "batch_size": BATCH_SIZE, "threads": 1, "device": "cpu"}
    study = whole.model_copy(
        update={
            "tasks": tasks,
            "training": whole.training.model_copy(update=changes),
            "evaluate": whole.evaluate.model_copy(update={"split": "val"}),
            "ablate": None,
            "output": str(out / "study"),
            "private": str(out / "private"),
        }
    )
    for stage in ("inventory", "preprocess", "pretrain"):
        run_stage(stage, study, {})
    return study


@dataclass(frozen=True)
class Simulation:
    """A task with the features of all its training scans, and of the crops that labels give."""

    cells: CropCells
    embeddings: NDArray[np.float64]  # (scans, dim)
    tokens: list[NDArray[np.float32]]  # of each scan (tokens, dim), which need no label
    crop_scans: NDArray[np.int64]  # the scan of each training crop
    train: NDArray[np.float32]  # (crops, 1, dim)
    scored: NDArray[np.float32]

    @classmethod
    def of_task(cls, study: Study, task: str, out: Path) -> "Simulation":
        """Measure all that is needed of a task, once."""
        context = evaluation_context(study, "probe", out / "cells", task)
        runner = TaskRunner(study.tasks[task], context)
        cells, loaded = CropCells(runner, study.tasks[task]), load_encoder(study.encoder)
        scans = [entry for entry in runner.subject_split.entries if entry.split == "train"]
        found = [
            loaded.embed_prepared(PreparedVolume(context.reader.read_volume(e.id), e.meta))
            for e in scans
        ]
        place = {entry.id: row for row, entry in enumerate(scans)}
        train, scored = (
            extract_features(loaded.model, cells.crop_batches(crops, 32), "cpu")
            for crops in (cells.train_crops, cells.test_crops)
        )
        return cls(
            cells,
            np.stack([each.vector for each in found]).astype(np.float64),
            [each.tokens[:: max(1, len(each.tokens) // MAX_TOKENS)] for each in found],
            np.array([place[crop.scan] for crop in cells.train_crops]),
            train,
            scored,
        )

    def curves(self, name: str) -> list[list[MetricValue]]:
        """Scores of the probe after each round, of each seed."""
        return [self._curve(name, seed) for seed in range(SEEDS)]

    def _curve(self, name: str, seed: int) -> list[MetricValue]:
        labelled = np.zeros(len(self.embeddings), bool)
        labelled[generator(seed, 0, "first labels").permutation(len(labelled))[: ROUNDS[0]]] = True
        curve = [self._score(labelled, seed)]
        for number, total in enumerate(ROUNDS[1:], start=1):
            probe, count = self._probe(labelled, seed), total - int(labelled.sum())

            def entropy(rows: NDArray[np.int64], fitted: PredictFunction = probe) -> Any:
                tokens = (self.tokens[row][:, None] for row in rows)
                return np.array([entr(fitted(each)).sum(axis=1).mean() for each in tokens])

            pool = LabelPool(
                ["one"] * len(labelled),
                labelled.copy(),
                lambda rows: self.embeddings[rows],
                entropy,
            )
            rng = generator(seed, number, f"next labels by {name}")
            labelled[strategy_named(name).choose(pool, count, rng)] = True
            curve.append(self._score(labelled, seed))
        return curve

    def _probe(self, labelled: NDArray[np.bool_], seed: int) -> PredictFunction:
        cells = self.cells
        every = LabelledFeatures(self.train, cells.targets, cells.subject_indices, cells.n_classes)
        return PROBE.fit(every.select(labelled[self.crop_scans]), seed)

    def _score(self, labelled: NDArray[np.bool_], seed: int) -> MetricValue:
        predicted = self._probe(labelled, seed)(self.scored)
        return self.cells.runner.score(self.cells.prediction_rows(predicted)).primary


def _row(task: str, name: str, curves: dict[str, list[list[MetricValue]]]) -> dict[str, Any]:
    """A strategy's curve, its area, and the difference of that from random scans, paired."""
    areas = {each: MetricEstimate.from_repeats(found) for each, found in curves.items()}
    apart = None if name == "random" else areas[name].difference(areas["random"], CONFIDENCE)
    by_round = zip(*curves[name], strict=True)
    return {
        "task": task,
        "strategy": name,
        "curve": [round(float(np.mean([each.value for each in seeds])), 4) for seeds in by_round],
        "area": areas[name].with_interval(CONFIDENCE, (0.0, 1.0)).model_dump(),
        "difference": apart and apart.model_dump(),
        "subjects": areas[name].pseudovalues.shape[1],
    }


def _page(rows: list[dict[str, Any]]) -> str:
    rounds = " | ".join(f"{number} scans" for number in ROUNDS)
    lines = [
        "# What to label next, simulated",
        "",
        f"`python -m tests.bench.next_labels`: an encoder of {STEPS} steps, frozen; a linear probe"
        " on the labels of the scans that a strategy chose; balanced accuracy on validation"
        f" subjects, mean of {SEEDS} seeds. Differences of areas are paired by subject and seed,"
        " with intervals of 95 %, not corrected for their number.",
        "",
        f"| task | strategy | {rounds} | area | minus random | p |",
        f"|---|---|{'---:|' * (len(ROUNDS) + 3)}",
    ]
    for row in rows:
        scores = " | ".join(f"{value:.3f}"[1:] if value < 1 else "1.00" for value in row["curve"])
        area = format_with_interval(*(row["area"][key] for key in ("mean", "low", "high")))
        apart, p = "", ""
        if found := row["difference"]:
            apart = format_difference(found["mean"], found["low"], found["high"])
            p = "" if found["p"] is None else format_p_value(found["p"]).removeprefix("= ")
        cells = (f"{row['task']} ({row['subjects']} subjects)", row["strategy"], scores, area)
        lines.append(f"| {' | '.join((*cells, apart, p))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
