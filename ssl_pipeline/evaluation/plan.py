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

from ssl_pipeline.atomic import sha256_json, sweep
from ssl_pipeline.errors import UserError, no_room
from ssl_pipeline.evaluation.cells import BASELINES, FAILED, FORMAT, WHOLE, Cell, Share, save, saved
from ssl_pipeline.evaluation.cohort import Cohort, budgets, cohort, order
from ssl_pipeline.evaluation.config import Evaluate
from ssl_pipeline.evaluation.crops import Volumes
from ssl_pipeline.evaluation.groups import Group, groups
from ssl_pipeline.evaluation.labels import LabelFile, LabelMaps
from ssl_pipeline.evaluation.looks import note_look
from ssl_pipeline.evaluation.metrics import Scored, scored
from ssl_pipeline.evaluation.summary import summarise, write
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.progress import detail, progress, say
from ssl_pipeline.section import Section
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.views.config import Triple

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder


# Of a task, what no truth depends on.
APART = {"title", "by", "probe", "finetune", "given"}
KEPT = {"keep_networks", "predictions"}  # of a section, what changes no score
# Hands out a fresh copy of an encoder that the caller may train: one of those that are compared, by
# its name, or the same architecture with random weights that the seed alone decides.
EncoderOf = Callable[[str, int], "Encoder"]
# What the file of a cell shall hold, from the cell and the section that goes with it.
Compute = Callable[[Cell, Any], dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """What an evaluation works on, whichever its task."""

    catalog: Catalog
    reader: CropReader
    label_file: LabelFile
    evaluate: Evaluate
    encoder_of: EncoderOf
    starts: Mapping[str, str]  # what is compared, with the hash that tells its weights
    crop_voxels: Triple  # (z, y, x), of tasks that give none
    out: Path  # folder of this task's results
    labels: Path  # folder of label maps on the stored grid, made where they are not there
    device: str = "cpu"
    seed: int = 0
    warning: str = ""  # what must be read before any figure
    conceal: Callable[[str], str] = str  # takes the paths of scans out of what an error says
    share: Share = WHOLE  # of the cells, to be computed without a table


class Plan:
    """A task in its setting: who takes part, and in which order labels are handed out."""

    def __init__(self, task: TaskConfig, setting: Setting) -> None:
        self.task, self.setting = task, setting
        self.size = task.crop(setting.crop_voxels)
        self.cohort: Cohort = cohort(task, setting.catalog, setting.evaluate.split)
        self.entries: Mapping[str, Entry] = {entry.id: entry for entry in self.cohort.entries}
        self.labels = LabelMaps(setting.labels, setting.label_file)

    @property
    def volumes(self) -> Volumes:
        """The stored volumes as they are."""
        return Volumes(self.setting.reader, self.entries)

    @property
    def groups(self) -> list[Group]:
        """Those of the scored scans that the study tells apart."""
        scored = [entry for entry in self.cohort.entries if entry.split != "train"]
        return groups(scored, self.setting.evaluate.groups, self.setting.catalog.entries)

    @cached_property
    def truth(self) -> str:
        """Hash of scans, subjects, splits and labels: what all cells of the task depend on."""
        task = self.task.model_dump(mode="json", exclude=APART)
        task["classes"] = list(self.task.classes.items())  # whose order numbers them
        scans = [
            [e.id, e.sha256, e.subject, e.split, self.task.truth(e, self.labels)]
            for e in self.cohort.entries
        ]
        return sha256_json([FORMAT, task, self.size, scans, self.setting.seed])

    def labelled(self, cell: Cell, shows: Mapping[str, frozenset[int]]) -> list[str]:
        """The training subjects whose labels a cell may see; `shows` has each subject's classes."""
        ordered = order(self.cohort.train, shows, self.setting.seed + cell.seed)
        chosen = set(ordered[: cell.subjects] if cell.subjects else ordered)
        return [subject for subject in self.cohort.train if subject in chosen]

    def key(self, cell: Cell, section: Section) -> str:
        """Hash of all that determines a cell's predictions."""
        own = [asdict(cell), section.model_dump(mode="json"), self.encoder(cell)]
        return sha256_json([self.truth, *own])

    def look(self, cells: Iterable[tuple[Cell, Section]]) -> str:
        """Hash of all that determines their scores, which is not what else is kept of them."""
        told = [
            [asdict(cell), section.model_dump(mode="json", exclude=KEPT), self.encoder(cell)]
            for cell, section in cells
        ]
        return sha256_json([self.truth, *told])

    def encoder(self, cell: Cell) -> str:
        """Hash of the encoder that a cell's predictions depend on; empty for pixels."""
        return self.setting.starts[cell.init]

    def budgets(self, asked: Sequence[int | str]) -> tuple[int, ...]:
        """Numbers of labelled subjects that this task can give."""
        return budgets(asked, len(self.cohort.train))

    def check_patch(self, patch: Triple) -> None:
        """Refuse crops that the encoder's patches do not fill."""
        if any(side % step for side, step in zip(self.size, patch, strict=True)):
            raise UserError(
                f"Task {self.task.title!r}: crops of {list(self.size)} voxels (z, y, x) are no "
                f"multiple of the encoder's patch, {list(patch)}: change crop_voxels."
            )


def walk(
    plan: Plan,
    cells: Iterable[tuple[Cell, Section]],
    compute: Compute,
    what: str,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    """Compute the cells that are missing, write the table and the costs, and return the table.

    Each cell comes with the section that, beside the plan, determines it. One that fails is written
    down as such, and tried again the next time; where all fail, the last error is raised. Of a
    share of the cells there is no table, and an empty one is returned.
    """
    every, share = list(cells), plan.setting.share
    found: dict[Cell, Scored] = {}  # predictions themselves would fill the memory
    by_group: dict[Group, dict[Cell, Scored]] = {group: {} for group in plan.groups}
    failed: dict[Cell, str] = {}
    costs = []
    todo = [every[index] for index in share.part(len(every))]
    for cell, content in _contents(plan, todo, compute, what):
        if FAILED in content:
            failed[cell] = content[FAILED]
        elif share == WHOLE:
            found[cell] = scored(plan.cohort.test, content["predictions"])
            for group, own in by_group.items():
                if figures := group.scored(content["predictions"]):
                    own[cell] = figures
            costs.append(asdict(cell) | content["costs"])
    if share != WHOLE:
        return {}
    note_look(plan.setting.out, plan.setting.evaluate.split, plan.look(every))
    left = plan.cohort.unused
    unused = (f"{left} scans without a truth for this task were left out.",) if left else ()
    results = summarise(
        plan.task,
        found,
        plan.setting.evaluate,
        train=plan.cohort.train,
        test=plan.cohort.test,
        starts=tuple(plan.setting.starts),
        by_group=by_group,
        seed=plan.setting.seed,
        failed=failed,
        notes=(*notes, *unused),
        warning=plan.setting.warning,
    )
    write(plan.setting.out, results, costs)
    return results


def _contents(
    plan: Plan,
    todo: Sequence[tuple[Cell, Section]],
    compute: Compute,
    what: str,
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """What the files of cells hold, each once it has been computed, if it is missing."""
    out, lost = plan.setting.out, 0
    if plan.setting.share == WHOLE:
        sweep(out / "cells")  # what a killed process left; beside others it may be theirs
    with progress(f"{what}: {plan.task.title}", total=len(todo)) as bar:
        for cell, section in todo:
            key = plan.key(cell, section)
            content = saved(cell, key, out)
            if content is None:
                content = _tried(plan, cell, section, compute, last=lost == len(todo) - 1)
                encoder = "" if cell.init in BASELINES else plan.encoder(cell)
                save(cell, key, encoder, content, out)
            lost += FAILED in content
            bar.advance(cell.name)
            if FAILED not in content:
                detail(f"{cell.name}: {content['costs']['seconds']:.1f} s")
            yield cell, content


def _tried(
    plan: Plan, cell: Cell, section: Section, compute: Compute, *, last: bool
) -> dict[str, Any]:
    """What a cell's file shall hold: its predictions, or why there are none.

    What the user can change, and a full disk, are no matter of one cell; nor is an error of the
    `last` of cells that have all failed.
    """
    try:
        return compute(cell, section)
    except Exception as error:
        if last or isinstance(error, UserError) or no_room(error):
            raise
        conceal = plan.setting.conceal
        detail(conceal(traceback.format_exc()))
        told = re.sub(r"(?:/[^\s/'\":]+)+", lambda found: Path(found[0]).name, conceal(str(error)))
        reason = f"{type(error).__name__}: {' '.join(told.split())}"
        say(f"{cell.name} failed: {reason}", error=True)
        return {FAILED: reason}
