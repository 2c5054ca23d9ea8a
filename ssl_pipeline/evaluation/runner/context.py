"""What probing and fine-tuning share: the setting, the cells, their keys, and the walk over them.

What can be wrong with a task is found here, before an encoder is asked for anything but its patch.
The walk skips cells that are there, computes the others one by one, and ends with the table.
"""

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError, is_disk_full
from ssl_pipeline.evaluation.cells import (
    BASELINES,
    FAILED,
    FORMAT_VERSION,
    UNSHARDED,
    Cell,
    CellShard,
    load_cell,
    save_cell,
)
from ssl_pipeline.evaluation.config import Evaluate
from ssl_pipeline.evaluation.data.crops import StoredVolumes
from ssl_pipeline.evaluation.data.label_maps import LabelFile, LabelMaps
from ssl_pipeline.evaluation.metrics.scores import CellScores, score_predictions
from ssl_pipeline.evaluation.runner.access_log import record_test_access
from ssl_pipeline.evaluation.runner.results import results_table, write_results
from ssl_pipeline.evaluation.runner.subject_splits import (
    SubjectSplit,
    labelling_order,
    resolve_budgets,
    split_subjects,
)
from ssl_pipeline.evaluation.statistics.subgroups import Subgroup, find_subgroups
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.io.atomic import remove_temporaries, sha256_json
from ssl_pipeline.progress import debug, info, progress
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.views.config import Triple

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder


# Of a task, what no truth depends on.
TRUTH_INDEPENDENT_KEYS = {"title", "stages", "probe", "finetune", "external_predictions"}
SCORE_INDEPENDENT_KEYS = {"keep_networks", "keep_predictions"}  # of a section, what changes no score
# Hands out a fresh copy of an encoder that the caller may train: one of those that are compared, by
# its name, or the same architecture with random weights that the seed alone decides.
EncoderFactory = Callable[[str, int], "Encoder"]
# What the file of a cell shall hold, from the cell and the section that goes with it.
ComputeCell = Callable[[Cell, Any], dict[str, Any]]


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluation works on, whichever its task."""

    catalog: Catalog
    reader: CropReader
    label_file: LabelFile
    evaluate: Evaluate
    encoder_factory: EncoderFactory
    initializations: Mapping[str, str]  # what is compared, with the hash that tells its weights
    crop_voxels: Triple  # (z, y, x), of tasks that give none
    out: Path  # folder of this task's results
    label_map_folder: Path  # folder of label maps on the stored grid, made where they are not there
    device: str = "cpu"
    seed: int = 0
    warning: str = ""  # what must be read before any figure
    redact: Callable[[str], str] = str  # takes the paths of scans out of what an error says
    shard: CellShard = UNSHARDED  # of the cells, to be computed without a table


class TaskRunner:
    """A task in its setting: who takes part, and in which order labels are handed out."""

    def __init__(self, task: TaskConfig, context: EvaluationContext) -> None:
        self.task, self.context = task, context
        self.crop_size = task.crop_size(context.crop_voxels)
        self.subject_split: SubjectSplit = split_subjects(
            task, context.catalog, context.evaluate.split
        )
        self.entries: Mapping[str, Entry] = {
            entry.id: entry for entry in self.subject_split.entries
        }
        self.label_maps = LabelMaps(context.label_map_folder, context.label_file)

    @property
    def volumes(self) -> StoredVolumes:
        """The stored volumes as they are."""
        return StoredVolumes(self.context.reader, self.entries)

    @property
    def subgroups(self) -> list[Subgroup]:
        """Those of the scored scans that the study tells apart."""
        scored = [entry for entry in self.subject_split.entries if entry.split != "train"]
        return find_subgroups(scored, self.context.evaluate.subgroups, self.context.catalog.entries)

    @cached_property
    def truth_hash(self) -> str:
        """Hash of scans, subjects, splits and labels: what all cells of the task depend on."""
        task = self.task.model_dump(mode="json", exclude=TRUTH_INDEPENDENT_KEYS)
        task["classes"] = list(self.task.classes.items())  # whose order numbers them
        scans = [
            [e.id, e.sha256, e.subject, e.split, self.task.truth_key(e, self.label_maps)]
            for e in self.subject_split.entries
        ]
        return sha256_json([FORMAT_VERSION, task, self.crop_size, scans, self.context.seed])

    def labelled_subjects(
        self, cell: Cell, classes_by_subject: Mapping[str, frozenset[int]]
    ) -> list[str]:
        """The training subjects whose labels a cell may see; `shows` has each subject's classes."""
        ordered = labelling_order(
            self.subject_split.train_subjects, classes_by_subject, self.context.seed + cell.seed
        )
        chosen = set(ordered[: cell.subjects] if cell.subjects else ordered)
        return [subject for subject in self.subject_split.train_subjects if subject in chosen]

    def cell_key(self, cell: Cell, section: Section) -> str:
        """Hash of all that determines a cell's predictions."""
        own = [asdict(cell), section.model_dump(mode="json"), self.encoder_hash(cell)]
        return sha256_json([self.truth_hash, *own])

    def access_key(self, cells: Iterable[tuple[Cell, Section]]) -> str:
        """Hash of all that determines their scores, which is not what else is kept of them."""
        told = [
            [
                asdict(cell),
                section.model_dump(mode="json", exclude=SCORE_INDEPENDENT_KEYS),
                self.encoder_hash(cell),
            ]
            for cell, section in cells
        ]
        return sha256_json([self.truth_hash, *told])

    def encoder_hash(self, cell: Cell) -> str:
        """Hash of the encoder that a cell's predictions depend on; empty for pixels."""
        return self.context.initializations[cell.initialization]

    def budgets(self, requested: Sequence[int | str]) -> tuple[int, ...]:
        """Numbers of labelled subjects that this task can give."""
        return resolve_budgets(requested, len(self.subject_split.train_subjects))

    def check_patch(self, patch: Triple) -> None:
        """Refuse crops that the encoder's patches do not fill."""
        if any(side % step for side, step in zip(self.crop_size, patch, strict=True)):
            raise UserError(
                f"Task {self.task.title!r}: crops of {list(self.crop_size)} voxels (z, y, x) are no "
                f"multiple of the encoder's patch, {list(patch)}: change crop_voxels."
            )


def run_cells(
    runner: TaskRunner,
    cells: Iterable[tuple[Cell, Section]],
    compute: ComputeCell,
    activity: str,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    """Compute the cells that are missing, write the table and the costs, and return the table.

    Each cell comes with the section that, beside the plan, determines it. One that fails is written
    down as such, and tried again the next time; where all fail, the last error is raised. Of a
    share of the cells there is no table, and an empty one is returned.
    """
    every, share = list(cells), runner.context.shard
    found: dict[Cell, CellScores] = {}  # predictions themselves would fill the memory
    by_group: dict[Subgroup, dict[Cell, CellScores]] = {group: {} for group in runner.subgroups}
    failed: dict[Cell, str] = {}
    costs = []
    todo = [every[index] for index in share.cell_range(len(every))]
    for cell, content in _cell_contents(runner, todo, compute, activity):
        if FAILED in content:
            failed[cell] = content[FAILED]
        elif share == UNSHARDED:
            found[cell] = score_predictions(
                runner.subject_split.test_subjects, content["predictions"]
            )
            for group, own in by_group.items():
                if figures := group.score(content["predictions"]):
                    own[cell] = figures
            costs.append(asdict(cell) | content["costs"])
    if share != UNSHARDED:
        return {}
    record_test_access(runner.context.out, runner.context.evaluate.split, runner.access_key(every))
    left = runner.subject_split.n_unlabelled_scans
    unused = (f"{left} scans without a truth for this task were left out.",) if left else ()
    results = results_table(
        runner.task,
        found,
        runner.context.evaluate,
        train=runner.subject_split.train_subjects,
        test=runner.subject_split.test_subjects,
        initializations=tuple(runner.context.initializations),
        by_subgroup=by_group,
        seed=runner.context.seed,
        failed=failed,
        notes=(*notes, *unused),
        warning=runner.context.warning,
    )
    write_results(runner.context.out, results, costs)
    return results


def _cell_contents(
    runner: TaskRunner,
    todo: Sequence[tuple[Cell, Section]],
    compute: ComputeCell,
    activity: str,
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """What the files of cells hold, each once it has been computed, if it is missing."""
    out, lost = runner.context.out, 0
    if runner.context.shard == UNSHARDED:
        remove_temporaries(
            out / "cells"
        )  # what a killed process left; beside others it may be theirs
    with progress(f"{activity}: {runner.task.title}", total=len(todo)) as bar:
        for cell, section in todo:
            key = runner.cell_key(cell, section)
            content = load_cell(cell, key, out)
            if content is None:
                content = _compute_or_record_failure(
                    runner, cell, section, compute, last=lost == len(todo) - 1
                )
                encoder = "" if cell.initialization in BASELINES else runner.encoder_hash(cell)
                save_cell(cell, key, encoder, content, out)
            lost += FAILED in content
            bar.advance(cell.name)
            if FAILED not in content:
                debug(f"{cell.name}: {content['costs']['seconds']:.1f} s")
            yield cell, content


def _compute_or_record_failure(
    runner: TaskRunner, cell: Cell, section: Section, compute: ComputeCell, *, last: bool
) -> dict[str, Any]:
    """What a cell's file shall hold: its predictions, or why there are none.

    What the user can change, and a full disk, are no matter of one cell; nor is an error of the
    `last` of cells that have all failed.
    """
    try:
        return compute(cell, section)
    except Exception as error:
        if last or isinstance(error, UserError) or is_disk_full(error):
            raise
        conceal = runner.context.redact
        debug(conceal(traceback.format_exc()))
        told = re.sub(r"(?:/[^\s/'\":]+)+", lambda found: Path(found[0]).name, conceal(str(error)))
        reason = f"{type(error).__name__}: {' '.join(told.split())}"
        info(f"{cell.name} failed: {reason}", error=True)
        return {FAILED: reason}
