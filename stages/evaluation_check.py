"""Check of what a study declares for its evaluations against the scans that there are.

What no evaluation could use is found here before anything is pretrained. The code of the
evaluations answers, on rows of the inventory in place of the catalog's.
"""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.corruptions import CorruptionConfig
from ssl_pipeline.evaluation.decoders.unet import missing_decoder_error
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
from ssl_pipeline.training.domain_bank import HELD_OUT_SPLIT
from ssl_pipeline.volumes.dataset_estimate import scans_from_headers
from ssl_pipeline.volumes.inventory import Inventory, Scan
from stages.core import layout
from stages.core.records import up_to_date_record
from stages.core.resources import raw_bytes
from stages.core.study import Study
from stages.leakage import leakage_warning
from stages.scan_features import task_features


def check_evaluations(study: Study) -> None:
    """Raise UserError for what the study declares and its inventory cannot serve."""
    scans = Inventory.read(layout.inventory_table(study)).accepted_scans
    check_scans(study, scans)
    check_label_values(study, scans)
    for task in study.tasks:
        task_features(study, task, scans)
    if study.has_pretraining:  # else the evaluations themselves are as early
        check_external_encoders(study)
        leakage_warning(study, scans, study.external_encoders)


def check_before_inventory(study: Study) -> None:
    """Raise UserError for what is known already: by the inventory, else by the headers of scans.

    Where no raw scan is there yet, nothing is known. Which classes labels hold, and which scans
    are rejected, the inventory alone finds. External encoders that are not there yet are asked for
    when the workflow starts.
    """
    for name, bundle in study.external_encoders.items():
        if (bundle / BUNDLE_MANIFEST).is_file():
            _check_external_encoder(study, name, bundle)
    if up_to_date_record("inventory", study, {}):
        check_evaluations(study)
    elif raw_bytes(study):
        check_scans(study, scans_from_headers(study.data, study.source_folder))


def check_scans(study: Study, scans: Sequence[Scan]) -> None:
    """Raise UserError where an encoder cannot be pretrained or evaluated on these scans."""
    for name in study.tasks:
        _check_task(study, name, scans)
    _check_objectives(study, scans)


def check_label_values(study: Study, scans: Sequence[Scan]) -> None:
    """Raise UserError where a task reads a label in which the inventory found no classes.

    A label that serves as a mask is kept whatever its values are, such as probabilities.
    """
    for task in study.tasks.values():
        labels = [truth.name for truth in task.truth_names() if truth.kind == "label"]
        for scan, name in product(task.usable_entries(scans), labels):
            if scan.labels.get(name) and name not in scan.label_classes:
                raise UserError(
                    f"Task {task.title!r}: label {name!r} of scan {scan.id} is a mask whose values "
                    "are no classes, such as probabilities: give a label of whole numbers."
                )


def check_external_encoders(study: Study) -> None:
    """Raise UserError where an external encoder has another model or preprocessing."""
    for name, bundle in study.external_encoders.items():
        _check_external_encoder(study, name, bundle)


def _check_external_encoder(study: Study, name: str, bundle: Path) -> None:
    check_contract(study, study.encoder_title(name), bundle)
    has_decoder = read_manifest(bundle).has_decoder
    if not has_decoder and any(study.starts_from_decoder(task) for task in study.tasks):
        raise missing_decoder_error(name)


def check_contract(study: Study, title: str, bundle: Path) -> None:
    """Raise UserError where an encoder has another model or preprocessing than the study.

    `title` is what the study calls it.
    """
    card = read_manifest(bundle)
    for key, trained_with, own in (
        ("model", card.model, study.model),
        ("preprocess", card.preprocess.for_roots([""]), study.preprocess.for_roots([""])),
    ):
        if trained_with != own:
            raise UserError(
                f"{title} was trained with another `{key}` than this study's: "
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
        objective.check_metadata(training)
    if study.promote:  # which reads the same metadata of held-out scans, after the run
        held_out = [scan for scan in scans if scan.split == HELD_OUT_SPLIT]
        study.objective.metadata_features([*training, *held_out])


def _check_task(study: Study, name: str, scans: Sequence[Scan]) -> None:
    task = study.tasks[name]
    split = split_subjects(task, scans, study.evaluate.split)
    for scan in split.entries:
        task.check_scan(scan)
    _check_targets(task, split)
    _check_budgets(study, name, len(split.train_subjects))
    find_subgroups(split.test_entries, study.evaluate.subgroups, scans)
    if "finetune" in task.evaluation_stages:
        _check_packages(task.supported_methods(study.finetune_of(name)))
    if study.robustness and study.evaluates_robustness(name):
        conditions = task_conditions(task, study.robustness, split.entries)
        _check_packages(corruption for corruption, _ in conditions)


def _check_packages(chosen: Iterable[AdaptationMethod | CorruptionConfig]) -> None:
    for each in chosen:
        if each.REQUIRED_PACKAGE and find_spec(each.REQUIRED_PACKAGE) is None:
            raise UserError(
                f"{each.TITLE} needs the package {each.REQUIRED_PACKAGE}, which is not installed: "
                f"`make setup` installs it, and so does `pip install {each.REQUIRED_PACKAGE}`."
            )


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
