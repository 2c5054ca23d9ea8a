"""Evaluation context, task runner and the loop over cells that probing and fine-tuning share.

Errors in a task are found here, before an encoder is used for anything but its patch size. The loop
skips cells that are complete, computes the others one by one, and ends with the results table.
"""

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError, is_disk_full
from ssl_pipeline.evaluation.cells import (
    BASELINES,
    FORMAT_VERSION,
    UNSHARDED,
    Cell,
    CellRecord,
    CellShard,
    load_cell,
    save_cell,
)
from ssl_pipeline.evaluation.config import Evaluate
from ssl_pipeline.evaluation.data.crops import StoredVolumes
from ssl_pipeline.evaluation.data.label_maps import LabelFile, LabelMaps
from ssl_pipeline.evaluation.data.scan_features import ScanFeatures
from ssl_pipeline.evaluation.metrics.scores import CellScores, Predictions
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.records import COSTS_FILE, RESULTS_FILE, CellCost, Costs, Results
from ssl_pipeline.evaluation.runner.access_log import ScoredSubjects, record_test_access
from ssl_pipeline.evaluation.runner.results import ScoredCells, build_results
from ssl_pipeline.evaluation.runner.subject_splits import (
    SubjectSplit,
    labelling_order,
    resolve_budgets,
    split_subjects,
)
from ssl_pipeline.evaluation.statistics.subgroups import Subgroup, find_subgroups
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.io.atomic import remove_temporaries, sha256_json
from ssl_pipeline.io.records import write_record
from ssl_pipeline.progress import debug, info, progress
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.types import Triple

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_pipeline.models.encoder import Encoder


SCORE_INDEPENDENT_KEYS = {"keep_networks", "keep_predictions"}  # of a section
# Builds a fresh copy of an encoder that the caller may train: one of those that are compared, by
# its name, or the same architecture with random weights that the seed alone decides.
EncoderFactory = Callable[[str, int], "Encoder"]
# The tensors of the U-Net's decoder that was trained along with an encoder, by the encoder's name;
# None where there is none, as of random weights.
DecoderWeights = Callable[[str], Mapping[str, "Tensor"] | None]
# Computes the content of a cell's file, from the cell and the section that determines it.
ComputeCell = Callable[[Cell, Any], dict[str, Any]]


def no_decoder(initialization: str) -> None:
    """The decoder of encoders that were trained without one."""
    return


@dataclass(frozen=True)
class EvaluationContext:
    """Inputs and settings of an evaluation, whichever its task."""

    catalog: Catalog
    reader: CropReader
    label_file: LabelFile
    evaluate: Evaluate
    encoder_factory: EncoderFactory
    initializations: Mapping[str, str]  # those that are compared, with the hash of their weights
    crop_voxels: Triple  # (z, y, x), of tasks that set none
    out: Path  # folder of this task's results
    label_map_folder: Path  # label maps on the stored grid, written where they are missing
    device: str = "cpu"
    seed: int = 0
    warning: str = ""  # to be shown before any figure
    redact: Callable[[str], str] = str  # removes the paths of scans from an error message
    shard: CellShard = UNSHARDED  # cells to compute; a shard writes no table
    baseline_probe: Linear = field(default_factory=Linear)  # of pixels + PCA
    access_folder: Path | None = None  # the private one, which knows all accesses to subjects
    access_scope: str = ""  # the stage, and the trial of an ablation
    decoder_weights: DecoderWeights = no_decoder
    # Of initializations that are no encoders here but vectors of scans, by name; for probes.
    scan_features: Mapping[str, ScanFeatures] = field(default_factory=dict)


class TaskRunner:
    """A task in its context: subject split, label maps, cell keys and budgets."""

    def __init__(self, task: Task, context: EvaluationContext) -> None:
        self.task, self.context = task, context
        self.crop_size = task.crop_size(context.crop_voxels)
        self.subject_split: SubjectSplit[Entry] = split_subjects(
            task, context.catalog.entries, context.evaluate.split
        )
        self.entries: Mapping[str, Entry] = {
            entry.id: entry for entry in self.subject_split.entries
        }
        self.label_maps = LabelMaps(context.label_map_folder, context.label_file)

    def with_baselines(self, hashes: Mapping[str, str]) -> "TaskRunner":
        """The same with more baselines to compare, each with the hash of what it depends on."""
        every = {**self.context.initializations, **hashes}
        return TaskRunner(self.task, replace(self.context, initializations=every))

    @property
    def test_entries(self) -> list[Entry]:
        """The scored scans."""
        return self.subject_split.test_entries

    @property
    def volumes(self) -> StoredVolumes:
        """The stored volumes as they are."""
        return StoredVolumes(self.context.reader, self.entries)

    @property
    def subgroups(self) -> list[Subgroup]:
        """Subgroups of the scored scans, by `evaluate.subgroups`."""
        names = self.context.evaluate.subgroups
        return find_subgroups(self.test_entries, names, self.context.catalog.entries)

    def score(self, predictions: Predictions) -> CellScores:
        """All metrics of predictions of the scored scans."""
        return self.task.score(self.subject_split.test_subjects, predictions)

    @cached_property
    def truth_hash(self) -> str:
        """Hash of scans, subjects, splits and labels, on which all cells of the task depend."""
        task = self.task.model_dump(mode="json", exclude=set(self.task.TRUTH_INDEPENDENT_KEYS))
        task["classes"] = list(self.task.classes.items())  # whose order numbers them
        scans = [
            [e.id, e.sha256, e.subject, e.split, self.task.truth_key(e, self.label_maps)]
            for e in self.subject_split.entries
        ]
        predicted = sorted(self.subject_split.predicted_subjects)  # who choose nothing
        own = [FORMAT_VERSION, task, self.crop_size, scans, self.context.seed, *predicted]
        return sha256_json(own)

    def labelled_subjects(
        self, cell: Cell, classes_by_subject: Mapping[str, frozenset[int]]
    ) -> list[str]:
        """The training subjects whose labels a cell may use."""
        ordered = labelling_order(
            self.subject_split.train_subjects, classes_by_subject, self.context.seed + cell.seed
        )
        chosen = set(ordered[: cell.subjects] if cell.subjects else ordered)
        return [subject for subject in self.subject_split.train_subjects if subject in chosen]

    def cell_key(self, cell: Cell, section: Section) -> str:
        """Hash of everything that determines a cell's predictions."""
        own = [asdict(cell), section.model_dump(mode="json"), self.encoder_hash(cell)]
        return sha256_json([self.truth_hash, *own])

    def access_key(self, cells: Iterable[tuple[Cell, Section]]) -> str:
        """Hash of everything that determines the cells' scores, for the log of test accesses."""
        own = [
            [
                asdict(cell),
                section.model_dump(mode="json", exclude=SCORE_INDEPENDENT_KEYS),
                self.encoder_hash(cell),
            ]
            for cell, section in cells
        ]
        return sha256_json([self.truth_hash, *own])

    def record_access(self, key: str) -> None:
        """Log that the configuration with this key scores the subjects."""
        context, scored = self.context, None
        if context.access_folder:
            truths = [[truth.kind, truth.name] for truth in self.task.truth_names()]
            scored = ScoredSubjects(
                context.access_folder,
                context.access_scope,
                sha256_json([self.task.kind, truths]),
                self.subject_split.test_subjects,
            )
        record_test_access(context.out, context.evaluate.split, key, scored)

    def encoder_hash(self, cell: Cell) -> str:
        """Hash of the encoder that a cell's predictions depend on; empty for pixels."""
        return self.context.initializations[cell.initialization]

    def budgets(self, requested: Sequence[int | str]) -> tuple[int, ...]:
        """Numbers of labelled subjects that this task has."""
        return resolve_budgets(requested, len(self.subject_split.train_subjects))

    def check_patch(self, patch: Triple) -> None:
        """Refuse crops that are no multiple of the encoder's patch."""
        if any(side % step for side, step in zip(self.crop_size, patch, strict=True)):
            raise UserError(
                f"Task {self.task.title!r}: crops of {list(self.crop_size)} voxels (z, y, x) are "
                f"no multiple of the encoder's patch, {list(patch)}: change crop_voxels."
            )


def run_cells(
    runner: TaskRunner,
    cells: Iterable[tuple[Cell, Section]],
    compute: ComputeCell,
    activity: str,
    notes: tuple[str, ...],
) -> Results | None:
    """Compute the missing cells, write the results and the costs, and return the results.

    Each cell comes with the section that, beside the runner, determines it. A cell that fails is
    recorded as failed, and computed again the next time; where all fail, the last error is raised.
    A shard of the cells has no results.
    """
    every, shard = list(cells), runner.context.shard
    scores: dict[Cell, CellScores] = {}  # predictions themselves would fill the memory
    by_subgroup: dict[Subgroup, dict[Cell, CellScores]] = {each: {} for each in runner.subgroups}
    failed: dict[Cell, str] = {}
    costs = []
    todo = [every[index] for index in shard.cell_range(len(every))]
    for cell, record in _cell_records(runner, todo, compute, activity):
        if record.failed:
            failed[cell] = record.failed
        elif shard == UNSHARDED:
            scores[cell] = runner.score(record.predictions)
            for subgroup, own in by_subgroup.items():
                if subgroup_scores := subgroup.score(runner.task.score, record.predictions):
                    own[cell] = subgroup_scores
            costs.append(CellCost(**asdict(cell), **record.costs))
    if shard != UNSHARDED:
        return None
    runner.record_access(runner.access_key(every))
    excluded = runner.task.exclusion_note(runner.subject_split.excluded)
    results = build_results(
        runner.task,
        ScoredCells(
            scores,
            by_subgroup,
            failed,
            tuple(runner.context.initializations),
            runner.subject_split.train_subjects,
            runner.subject_split.test_subjects,
        ),
        runner.context.evaluate,
        notes=(*notes, *((excluded,) if excluded else ())),
        warning=runner.context.warning,
    )
    write_record(runner.context.out / COSTS_FILE, Costs(cells=tuple(costs)))
    write_record(runner.context.out / RESULTS_FILE, results)
    return results


def _cell_records(
    runner: TaskRunner,
    todo: Sequence[tuple[Cell, Section]],
    compute: ComputeCell,
    activity: str,
) -> Iterator[tuple[Cell, CellRecord]]:
    """Records of the cells; a missing one is computed first."""
    out, n_failed, is_told = runner.context.out, 0, False
    if runner.context.shard == UNSHARDED:
        # What a killed process left; beside other shards it may be theirs.
        remove_temporaries(out / "cells")
    with progress(f"{activity}: {runner.task.title}", total=len(todo)) as bar:
        for cell, section in todo:
            key = runner.cell_key(cell, section)
            record = load_cell(cell, key, out)
            is_new = record is None
            if record is None:
                if not is_told and cell.path(out).exists():
                    is_told = True
                    info(
                        f"{cell.name} is computed again, as others may be: it failed, or its "
                        "settings, labels or encoder have changed."
                    )
                bar.begin(cell.name)
                content = _compute_or_record_failure(
                    runner, cell, section, compute, last=n_failed == len(todo) - 1
                )
                encoder = "" if cell.initialization in BASELINES else runner.encoder_hash(cell)
                record = CellRecord(key=key, encoder=encoder, **content)
                save_cell(cell, record, out)
            n_failed += bool(record.failed)
            bar.advance(cell.name, is_new=is_new)
            if not record.failed:
                debug(f"{cell.name}: {record.costs['seconds']:.1f} s")
            yield cell, record


def _compute_or_record_failure(
    runner: TaskRunner, cell: Cell, section: Section, compute: ComputeCell, *, last: bool
) -> dict[str, Any]:
    """Content of a cell's file: its predictions, or the reason of its failure.

    A UserError, and a full disk, concern more than one cell and are raised, as is the error of the
    `last` of cells that have all failed.
    """
    try:
        return compute(cell, section)
    except Exception as error:
        if last or isinstance(error, UserError) or is_disk_full(error):
            raise
        redact = runner.context.redact
        debug(redact(traceback.format_exc()))
        text = re.sub(r"(?:/[^\s/'\":]+)+", lambda found: Path(found[0]).name, redact(str(error)))
        reason = f"{type(error).__name__}: {' '.join(text.split())}"
        info(f"{cell.name} failed: {reason}", error=True)
        return {"failed": reason}
