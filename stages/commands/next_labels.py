"""Which scans of a task to label next: `ssl-pipeline next`.

The list, with codes alone, lies with the results; a folder that annotation tools open, with links
to the scans, in the private folder. Embeddings and entropies are written down when they are
computed, so that a run that was stopped goes on, and the next list needs no more than new scans.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.export.manifest import WEIGHTS_FILE
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import sha256_file, write_csv
from ssl_pipeline.progress import info
from ssl_pipeline.review.log_entry import check_reader
from ssl_pipeline.review.next_labels import LabelPool, strategy_named
from ssl_pipeline.review.next_labels.strategy import Rows
from ssl_pipeline.review.next_labels.work_folder import (
    assign_reader,
    labelled_scans,
    write_work_folder,
)
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.views.rng import generator
from stages.commands.measured_scans import embed_scans, measure_scans
from stages.core import layout
from stages.core.study import Study
from stages.evaluation_inputs import evaluation_device

COLUMNS = ("place", "scan", "subject", "root", "site", "modality", "strategy")
NEXT_FILES = (f"*/{layout.WORK_LIST}", "embeddings-*.unfinished", "*/entropy-*.unfinished")


def choose_next(study: Study, task: str, count: int, strategy: str, reader: str = "") -> None:
    """Write the list of the `count` scans to label next, and the folder of their images.

    `reader` is the short code of who is to label them, if that is known. Raises UserError for one
    that is none, for a task that does not exist, where nothing or less than `count` is left to
    label, and where what the strategy needs is not there yet.
    """
    if reader:
        check_reader(reader)
    if task not in study.tasks:
        raise UserError(f"The study has no task {task!r}; {suggest_name(task, study.tasks)}")
    catalog = Catalog.read(layout.catalog_table(study))
    work_folder = layout.work_folder(study, task)
    entries, is_labelled = _pool(study.tasks[task], catalog, labelled_scans(work_folder))
    _check_count(study.tasks[task], count, int((~is_labelled).sum()))
    scans = _Measurements(study, task, catalog, entries)
    pool = LabelPool(
        [f"{entry.root}\n{entry.site}" for entry in entries],
        is_labelled,
        scans.features,
        scans.entropy,
    )
    rng = generator(study.seed, 0, f"next labels of {task}")
    chosen = [entries[row] for row in strategy_named(strategy).choose(pool, count, rng)]
    table = layout.work_list(study, task)
    _write_list(table, chosen, strategy)
    origins = study.pseudonyms.origins
    write_work_folder(work_folder, [origins[entry.id] for entry in chosen])
    if reader:
        assign_reader(work_folder, [entry.id for entry in chosen], reader)
    left = format_count(int((~is_labelled).sum()), "scan")
    info(f"next: {count} of {left} without a label: {table}; to label them, open {work_folder}")


def _pool(
    task: Task, catalog: Catalog, finished: frozenset[str]
) -> tuple[list[Entry], NDArray[np.bool_]]:
    """The training scans of a task that are labelled, or of a subject without any label.

    A scan counts as labelled where it has all that the task needs, or a `finished` label that the
    inventory does not know yet.
    """
    needed = [truth for truth in task.truth_names() if truth.is_required]

    def is_labelled(entry: Entry) -> bool:
        has_truth = all(truth.find_in(entry).get(truth.name) for truth in needed)
        return has_truth or entry.id in finished

    usable = [e for e in task.entries(catalog.entries) if e.split == "train" and task.uses(e)]
    labelled = {entry.id for entry in usable if is_labelled(entry)}
    people = {entry.subject for entry in usable if entry.id in labelled} - {""}
    pool = [e for e in usable if e.id in labelled or e.subject not in people]
    return pool, np.array([entry.id in labelled for entry in pool], bool)


def _check_count(task: Task, count: int, unlabelled: int) -> None:
    if not unlabelled:
        raise UserError(
            f"Task {task.title!r}: every training subject has a label: add scans without, run the"
            " stages inventory and preprocess, and ask again."
        )
    if not 1 <= count <= unlabelled:
        raise UserError(
            f"Task {task.title!r}: --count is {count}, and {format_count(unlabelled, 'scan')} of"
            f" subjects without a label can be chosen: ask for 1 to {unlabelled}."
        )


def _write_list(path: Path, chosen: Sequence[Entry], strategy: str) -> None:
    rows = (
        {
            "place": place,
            "scan": entry.id,
            "subject": entry.subject,
            "root": entry.root,
            "site": entry.site,
            "modality": entry.modality,
            "strategy": strategy,
        }
        for place, entry in enumerate(chosen, start=1)
    )
    write_csv(path, COLUMNS, rows)


@dataclass(frozen=True)
class _Measurements:
    """What strategies ask of scans, computed once for each scan."""

    study: Study
    task: str
    catalog: Catalog
    entries: Sequence[Entry]

    def features(self, rows: Rows) -> NDArray[np.float64]:
        """Embeddings (m, dim) of scans, as `ssl-pipeline embed` computes them."""
        bundle = next(iter(self.study.encoders.values()))
        if not (bundle / WEIGHTS_FILE).exists():
            raise UserError(
                f"{bundle} is not there yet: pretrain first, or take --strategy random, which needs"
                " no encoder."
            )
        return embed_scans(self.study, self.catalog, self._of(rows), bundle)

    def entropy(self, rows: Rows) -> NDArray[np.float64]:
        """Mean predictive entropy (m,) of scans, by the task's model."""
        from ssl_pipeline.export.task_model.bundle import load_model
        from ssl_pipeline.export.task_model.manifest import MODEL_MANIFEST

        folder = self.study.stage_folder("finetune", {"task": self.task}) / layout.MODEL_FOLDER
        manifest = folder / MODEL_MANIFEST
        if not manifest.exists():
            raise UserError(
                f"Task {self.study.tasks[self.task].title!r} has no model in {folder}: fine-tune it"
                " first, or take another --strategy."
            )
        model = load_model(folder).to(evaluation_device(self.study))
        path = layout.next_folder(self.study) / self.task / f"entropy-{sha256_file(manifest)[:8]}"
        return measure_scans(
            self.study,
            self.catalog,
            self._of(rows),
            path,
            lambda prepared: [model.predictor.entropy(prepared)],
        )[:, 0]

    def _of(self, rows: Rows) -> list[Entry]:
        return [self.entries[row] for row in rows]
