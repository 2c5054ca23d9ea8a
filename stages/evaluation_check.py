"""Check of what a study declares for its evaluations against the scans that there are.

What no evaluation could use is found here before anything is pretrained. The code of the
evaluations answers, on rows of the inventory in place of the catalog's.
"""

from collections.abc import Sequence

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.robustness.robustness import task_conditions
from ssl_pipeline.evaluation.runner.subject_splits import (
    SubjectSplit,
    check_budgets,
    check_learnable,
    split_subjects,
)
from ssl_pipeline.evaluation.statistics.subgroups import find_subgroups
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.export.manifest import BUNDLE_MANIFEST, read_manifest
from ssl_pipeline.volumes.dataset_estimate import scans_from_headers
from ssl_pipeline.volumes.fingerprint import total_bytes
from ssl_pipeline.volumes.inventory import Inventory, Scan
from stages.core import layout
from stages.core.records import up_to_date_record
from stages.core.study import Study
from stages.leakage import leakage_warning


def check_evaluations(study: Study) -> None:
    """Raise UserError for what the study declares and its inventory cannot serve."""
    scans = Inventory.read(layout.inventory_table(study)).accepted_scans
    check_scans(study, scans)
    if study.has_pretraining:  # else the evaluations themselves are as early
        check_external_encoders(study)
        leakage_warning(study, scans, study.external_encoders)


def check_before_inventory(study: Study) -> None:
    """Raise UserError for what is known already: by the inventory, else by the headers of scans.

    Where no raw scan is there yet, nothing is known. Which classes labels hold, and which scans
    are rejected, the inventory alone finds.
    """
    if up_to_date_record("inventory", study, {}):
        check_evaluations(study)
    elif total_bytes(study.data, study.source_folder):
        check_scans(study, scans_from_headers(study.data, study.source_folder))


def check_scans(study: Study, scans: Sequence[Scan]) -> None:
    """Raise UserError where an encoder cannot be pretrained or evaluated on these scans."""
    for name in study.tasks:
        _check_task(study, name, scans)
    _check_objectives(study, scans)


def check_external_encoders(study: Study) -> None:
    """Raise UserError where an external encoder has another model or preprocessing."""
    for name, bundle in study.external_encoders.items():
        card = read_manifest(bundle)
        for key, trained_with, own in (
            ("model", card.model, study.model),
            ("preprocess", card.preprocess.for_roots([""]), study.preprocess.for_roots([""])),
        ):
            if trained_with != own:
                raise UserError(
                    f"evaluate.encoders.{name} was trained with another `{key}` than this study's: "
                    f"write here what {bundle / BUNDLE_MANIFEST} says."
                )


def _check_objectives(study: Study, scans: Sequence[Scan]) -> None:
    """Raise UserError where nothing can be trained on, or an objective lacks its metadata."""
    training = [scan for scan in scans if scan.split in ("train", "")]
    if study.has_pretraining and not training:
        raise UserError(
            "No usable scan is of the split train, and pretraining needs some: change data.splits."
        )
    for objective in (study.objective, *(study.ablate.arms.values() if study.ablate else ())):
        objective.metadata_features(training)


def _check_task(study: Study, name: str, scans: Sequence[Scan]) -> None:
    task = study.tasks[name]
    split = split_subjects(task, scans, study.evaluate.split)
    _check_targets(task, split)
    _check_budgets(study, name, len(split.train_subjects))
    find_subgroups(split.test_entries, study.evaluate.subgroups, scans)
    if study.robustness and study.evaluates_robustness(name):
        task_conditions(task, study.robustness, split.entries)


def _check_targets(task: Task, split: SubjectSplit[Scan]) -> None:
    """Where the inventory knows the targets of all scans, they must be learnable."""
    train: list[int | float] = []
    scored: list[int | float] = []
    for scan in split.entries:
        targets = task.inventory_targets(scan)
        if targets is None:
            return
        (train if scan.split == "train" else scored).extend(targets)
    check_learnable(task, train, scored)


def _check_budgets(study: Study, name: str, available: int) -> None:
    """Numbers of labelled subjects that the study itself asks for; the default is for any size."""
    evaluate, title = study.evaluate, study.tasks[name].title
    own = study.finetune_of(name).subjects
    if own and "finetune" in study.tasks[name].evaluation_stages:
        check_budgets(title, "finetune.subjects", own, available)
    if "subjects" in evaluate.model_fields_set:
        check_budgets(title, "evaluate.subjects", evaluate.subjects, available)
