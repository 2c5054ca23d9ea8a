"""Evidence of segmentation: the scores of finished studies with real nnU-Net beside them.

    python -m tests.bench.segmentation_evidence STUDY... [--nnunet]

takes studies whose stage `finetune` is finished, and writes `results/segmentation.json` and `.md`
beside the first. With `--nnunet` it first trains nnU-Net on the same labelled subjects as each of
the tasks' rows, for as many crops, and scores it on the same subjects by the same code; a training
that is finished is not done again, and a row says of how many seeds it is.

The rows take more hours than one machine may have at a time: what the file holds already, and these
studies have not scored here, stays in it.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from ssl_pipeline.evaluation.adaptation.full import Full
from ssl_pipeline.evaluation.cells import BASELINES, PIXELS
from ssl_pipeline.evaluation.records import read_results
from ssl_pipeline.evaluation.runner.finetune import cell_section
from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate, SeedEstimate
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import write_bytes, write_json
from stages.core.study import Study
from stages.core.study_file import load_study
from tests.bench import nnunet
from tests.bench.segmentation_task import Budget, SegmentationComparison

OUT = Path("build/bench/segmentation")
METRIC = "mean Dice"


@dataclass(frozen=True)
class EvidenceRow:
    """The score of one start with some labelled subjects, over subjects and seeds."""

    task: str
    start: str  # pretrained, random, pixels or nnunet
    network: str
    subjects: int  # labelled training subjects; 0 is all
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    seeds: int  # trainings, each with its own draw of labelled subjects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--nnunet", action="store_true", help="train nnU-Net where it has not been")
    words = parser.parse_args()
    studies = [load_study(path) for path in words.studies]
    peers = _nnunet_tasks(studies)
    if words.nnunet:
        for peer in peers:
            peer.train_all()
    file = words.studies[0].parent / "results/segmentation.json"
    scored = [row for study in studies for row in study_rows(study)]
    scored += [row for peer in peers for row in peer.rows()]
    earlier = json.loads(file.read_text()) if file.exists() else []
    rows = list(unique_rows(scored + [EvidenceRow(**row) for row in earlier]))
    write_json(file, [asdict(row) for row in rows])
    write_bytes(file.with_suffix(".md"), _markdown(rows).encode())


def study_rows(study: Study) -> Iterator[EvidenceRow]:
    """The rows of the tasks of a study that are finished."""
    for name in study.tasks:
        folder = study.stage_folder("finetune", {"task": name})
        if not (folder / "results.json").exists():
            continue
        results = read_results(folder)
        for row in results.rows:
            start = BASELINES.get(row.initialization, row.initialization)
            network = "voxel PCA" if row.initialization == PIXELS else study.model.name
            yield _row(results.task, start, network, row.subjects, row)


def unique_rows(rows: Iterable[EvidenceRow]) -> Iterator[EvidenceRow]:
    """Of each task, start, network and number of subjects the row of most seeds, first of equals.

    Studies share a baseline, and what is scored anew replaces what stood in the file.
    """
    found: dict[tuple[str, str, str, int], EvidenceRow] = {}
    for row in rows:
        key = (row.task, row.start, row.network, row.subjects)
        if key not in found or row.seeds > found[key].seeds:
            found[key] = row
    yield from found.values()


def _row(task: str, start: str, network: str, subjects: int, found: SeedEstimate) -> EvidenceRow:
    return EvidenceRow(
        task=task,
        start=start,
        network=network,
        subjects=subjects,
        metric=METRIC,
        mean=found.mean,
        low=found.low,
        high=found.high,
        seeds=len(found.per_seed),
    )


@dataclass(frozen=True)
class NnUNetTask:
    """nnU-Net on one task, with each number of labelled subjects and each seed of a study."""

    study: Study
    name: str

    @cached_property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of labelled subjects; 0 is all."""
        chosen = self.study.finetune.subjects or self.study.evaluate.subjects
        return self._comparison(0, 0).runner.budgets(chosen)

    @property
    def seeds(self) -> range:
        return range(self.study.finetune.seeds or self.study.evaluate.seeds)

    def train_all(self) -> None:
        """Train and score what is missing, the first seed of every number of subjects first."""
        for seed in self.seeds:
            for subjects in self.budgets:
                if not self._file(subjects, seed).exists():
                    write_json(self._file(subjects, seed), self._train(subjects, seed))

    def rows(self) -> Iterator[EvidenceRow]:
        """Of the numbers of labelled subjects, over the seeds that are there."""
        for subjects in self.budgets:
            found = (self._file(subjects, seed) for seed in self.seeds)
            files = [file for file in found if file.exists()]
            if files:
                comparison = self._comparison(subjects, 0)
                values = [comparison.score(json.loads(file.read_text())) for file in files]
                estimate = MetricEstimate.from_seeds(values).with_seeds(
                    self.study.evaluate.confidence, (0, 1)
                )
                title = self.study.tasks[self.name].title
                yield _row(title, "nnunet", "ResEnc M", subjects, estimate)

    def _train(self, subjects: int, seed: int) -> list[dict]:
        comparison = self._comparison(subjects, seed)
        peer = nnunet.NnUNet(self._file(subjects, seed).with_suffix(""))
        peer.write_dataset(comparison)
        peer.plan()
        peer.train(_samples(comparison))
        return comparison.score_scans(peer.predict(comparison.scored_entries))

    def _comparison(self, subjects: int, seed: int) -> SegmentationComparison:
        crop = self.study.tasks[self.name].crop_voxels
        return SegmentationComparison(
            self.study, self.name, Budget(subjects, 0, 0, crop, seed=seed)
        )

    def _file(self, subjects: int, seed: int) -> Path:
        """Its scores: another study, or another number of crops, has files of its own."""
        crops = _samples(self._comparison(subjects, seed))
        return OUT / self.study.name / f"{self.name}-{subjects}-{seed}-{crops}.json"


def _nnunet_tasks(studies: list[Study]) -> list[NnUNetTask]:
    """One for each task, whatever number of studies have it."""
    found = {name: NnUNetTask(study, name) for study in studies[::-1] for name in study.tasks}
    return list(found.values())


def _samples(comparison: SegmentationComparison) -> int:
    """Crops that our row of as many labelled subjects sees."""
    section = cell_section(comparison.runner, comparison.study.finetune, comparison.cell, Full())
    return section.steps * section.batch_size


def _markdown(rows: list[EvidenceRow]) -> str:
    """A table of each task: starts and networks down, labelled subjects across."""
    parts = ["# Segmentation from few and from all labels\n"]
    for task in dict.fromkeys(row.task for row in rows):
        own = [row for row in rows if row.task == task]
        budgets = sorted({row.subjects for row in own}, key=lambda n: (n == 0, n))
        head = ["start", "network", *(f"{n} subjects" if n else "all" for n in budgets)]
        parts += [f"## {task} ({METRIC})\n", _line(head), _line(["---"] * len(head))]
        for start, network in dict.fromkeys((row.start, row.network) for row in own):
            of_row = {r.subjects: r for r in own if (r.start, r.network) == (start, network)}
            parts.append(_line([start, network, *(_cell(of_row.get(n)) for n in budgets)]))
        parts.append("")
    return "\n".join(parts)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: EvidenceRow | None) -> str:
    if row is None or row.mean is None:
        return ""
    interval = "" if row.low is None else f" [{row.low:.3f}, {row.high:.3f}]"
    return f"{row.mean:.3f}{interval}, {format_count(row.seeds, 'seed')}"


if __name__ == "__main__":
    main()
