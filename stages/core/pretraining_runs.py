"""Pretraining runs of a study: their cohorts, their folders, and the run that one continues from.

The cohort, a list of volumes, is frozen when a run starts: scans that come later wait until the
study raises `training.cohort`, for a week of GPU time is never restarted by a copied file. Every
combination of sections has a run folder of its own, so going back to an earlier one finds its
weights again, and so does a run that continues from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.io.records import Record, read_record, write_record
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.run_record import read_run_record
from ssl_pipeline.training.time_budget import TIME_BUDGET_FILE, TimeBudget
from stages.core import layout
from stages.core.study import Study

COHORT_KEYS = (  # settings that decide which volumes there are, and their content
    "preprocess",
    "store",
    "data.splits.fractions",
    "data.splits.lists",
    "data.splits.stratify",
    "data.splits.seed",
    "data.roots.*.weight",
    "data.roots.*.modality",
    "data.roots.*.intensity_offset",
    "data.roots.*.missing_value",
    "data.roots.*.masks",
)
HASHED_KEYS = ("seed", *COHORT_KEYS, "views", "model", "init_from", "objective", "training")
RUN_VERSION = 5  # raised when earlier runs cannot be resumed
CONTINUATION_VERSION = 2  # the same of runs that continue another


class CohortVolume(BaseModel):
    """A volume of a cohort, with what decided its sampling when the cohort was frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    sha256: str
    weight: float
    site: str
    targets: dict[str, str]

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata by which an objective may compare volumes."""
        return {"site": self.site, "targets": self.targets}


class Cohort(Record):
    """The volumes that a run trains on, in the order in which samples are drawn from them."""

    format: Literal[1] = 1
    volumes: tuple[CohortVolume, ...]

    @property
    def checksums(self) -> dict[str, str]:
        """The checksum of each volume, by its id."""
        return {volume.id: volume.sha256 for volume in self.volumes}

    def hash_items(self, with_metadata: bool) -> list[tuple[str, Any]]:
        """All parts that a run depends on, to be hashed."""
        weights = [(volume.id, volume.weight) for volume in self.volumes]
        metadata = [(volume.id, volume.metadata) for volume in self.volumes if with_metadata]
        return [*self.checksums.items(), *weights, *metadata]

    def entries(self, catalog: Catalog) -> list[Entry]:
        """The stored volumes of the cohort, weighted as it was frozen. UserError where none is."""
        stored = {entry.id: entry for entry in catalog.entries}
        found = [
            replace(stored[volume.id], weight=volume.weight, **volume.metadata)
            for volume in self.volumes
            if volume.id in stored
        ]
        if not found:
            raise UserError(
                f"None of the {len(self.volumes)} volumes that this cohort was frozen with is "
                "stored any more: raise training.cohort to train on those that are."
            )
        return found


@dataclass(frozen=True)
class PretrainingRun:
    """The run that a study means: on which cohort, and the run that it continues from."""

    study: Study
    cohort: Cohort
    parent: "PretrainingRun | None"

    @cached_property
    def folder(self) -> Path:
        """The folder of checkpoints and metrics for these sections, cohort and initial weights.

        Raises UserError where the weights that it starts from are not there.
        """
        hashed = [RUN_VERSION, self.study.sections_hash(HASHED_KEYS, {}), self.cohort_items]
        if self.study.init_from:
            hashed.append(self.study.init_from.sha256)
        if self.parent:
            hashed += [CONTINUATION_VERSION, self.parent.folder.name]
        return _runs_folder(self.study) / sha256_json(hashed)[: layout.RUN_NAME_DIGITS]

    @property
    def cohort_items(self) -> list[tuple[str, Any]]:
        """All parts of the cohort that this run depends on."""
        return self.cohort.hash_items(bool(self.study.objective.metadata_used()))

    @property
    def steps(self) -> int:
        """The last step of the run; 0 where it is given hours and has not started yet.

        Raises UserError where it has started and what its hours have become is lost.
        """
        if not self.study.training.hours:
            return self.study.training.steps
        path = self.folder / TIME_BUDGET_FILE
        remedy = f"bring it back, or remove {self.folder} to start the run anew"
        if path.exists():
            return read_record(TimeBudget, path, remedy).steps
        if any(layout.checkpoints_folder(self.folder).glob("*.pt")):
            raise UserError(f"{path}, which says how many steps the run has, is gone: {remedy}.")
        return 0

    def training(self, steps: int) -> Training:
        """The settings of the run with this last step, which hours alone do not say."""
        return self.study.training.with_steps(steps, self.parent.steps if self.parent else 0)

    @property
    def lineage(self) -> "Iterator[PretrainingRun]":
        """The run itself and all that it continues from, the newest first."""
        yield self
        if self.parent:
            yield from self.parent.lineage

    @property
    def lineage_volumes(self) -> dict[str, str]:
        """Volumes of all cohorts of the lineage, id to checksum; the newest checksum counts."""
        oldest_first = reversed(list(self.lineage))
        return {name: sha for run in oldest_first for name, sha in run.cohort.checksums.items()}


def pretraining_run(study: Study) -> PretrainingRun:
    """The run that a study means, by its frozen cohort, or by the one that it would freeze now.

    Raises UserError where the cohort of the run that it continues from is not there.
    """
    parent = pretraining_run(parent_study(study)) if study.training.continue_from else None
    return PretrainingRun(study, read_cohort(study), parent)


def run_folder(study: Study) -> Path:
    """The folder of the run that a study means."""
    return pretraining_run(study).folder


def parent_study(study: Study) -> Study:
    """The study with the settings of the run that the present one continues from.

    Raises UserError where that run's cohort is not there.
    """
    base = study.training.continue_from
    assert base
    then = {key: value for key, value in base if key != "roots"}
    data = study.data
    if base.roots:
        roots = tuple(root for root in data.roots if root.title in base.roots)
        data = data.model_copy(update={"roots": roots})
    training = study.training.model_copy(update=then)
    earlier = study.model_copy(update={"training": training, "data": data})
    if not cohort_path(earlier).exists():
        raise missing_parent_error(study, "has never been started")
    return earlier


def missing_parent_error(study: Study, reason: str) -> UserError:
    """The error where the run to continue from is not there, or not complete."""
    base = study.training.continue_from
    assert base
    its_own = "this `continue_from`" if base.continue_from else "no `continue_from`"
    return UserError(
        f"training.continue_from names the run of {base.length} on cohort {base.cohort}, "
        f"which {reason}: `python -m stages pretrain --config STUDY` makes it, where the study's "
        f"`training` has {base.length}, cohort {base.cohort} and {its_own}."
    )


def cohort_path(study: Study) -> Path:
    """The file of the study's frozen cohort, named by the settings that decide its volumes."""
    return layout.cohort_file(study, study.training.cohort, study.sections_hash(COHORT_KEYS, {}))


def read_cohort(study: Study) -> Cohort:
    """The frozen cohort; before a run has started, that of the volumes that are stored now."""
    path = cohort_path(study)
    if path.exists():
        return read_record(Cohort, path, "remove it, and the next run freezes its cohort again")
    catalog = Catalog.read(layout.catalog_table(study))
    entries = [e for e in catalog.entries if e.split in ("train", "")]
    if not entries:
        raise UserError(
            "No volume belongs to the split train: see data.splits, or the split column."
        )
    return Cohort(
        volumes=tuple(
            CohortVolume(id=e.id, sha256=e.sha256, weight=e.weight, site=e.site, targets=e.targets)
            for e in entries
        )
    )


def freeze_cohort(run: PretrainingRun) -> None:
    """Write the cohort of a run that starts, unless an earlier run has frozen it."""
    path = cohort_path(run.study)
    if not path.exists():
        write_record(path, run.cohort)


def other_runs(run: PretrainingRun) -> list[Path]:
    """The folders of the study's runs that neither `run` is nor those that it continues from."""
    lineage = [each.folder for each in run.lineage]
    found = sorted(_runs_folder(run.study).glob(layout.RUN_NAME_PATTERN))
    return [folder for folder in found if folder not in lineage]


def stale_runs(study: Study) -> list[Path]:
    """Run folders that neither the present settings and cohort nor the encoder use."""
    kept = _needed_runs(study)
    found = sorted(_runs_folder(study).glob(layout.RUN_NAME_PATTERN)) if kept else []
    return [run for run in found if run not in kept]


def stale_checkpoints(study: Study) -> list[Path]:
    """Checkpoints before the newest one of the runs that are needed."""
    from ssl_pipeline.training.checkpoint import superseded_files

    folders = map(layout.checkpoints_folder, _needed_runs(study))
    return [path for folder in folders for path in superseded_files(folder)]


def _runs_folder(study: Study) -> Path:
    return study.stage_folder("pretrain", {}) / layout.RUNS_FOLDER


def _needed_runs(study: Study) -> list[Path]:
    """The present run, those that it continues from, and that of the encoder.

    Empty where they cannot be determined: a cohort, or what a run starts from, is gone.
    """
    if not cohort_path(study).exists():
        return []
    try:
        kept = [run.folder for run in pretraining_run(study).lineage]
    except UserError:
        return []
    pretrain = study.stage_folder("pretrain", {})
    made = read_run_record(pretrain)
    return [*kept, pretrain / made.folder] if made else kept
