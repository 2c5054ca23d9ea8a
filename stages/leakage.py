"""Leakage check: no test subject may be one that the encoder was pretrained on.

A study may allow it (`evaluate.allow_pretraining_subjects`), and then its results say so.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.training_subjects import TrainingSubjects
from ssl_pipeline.formatting import format_count
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.volumes.inventory import Inventory, Scan
from stages.core import layout
from stages.core.study import Study


def leakage_warning(
    study: Study, scans: Sequence[Entry | Scan], encoders: Mapping[str, Path]
) -> str:
    """The warning of results about evaluated subjects in pretraining data; empty if there are none.

    `scans` are all that may be evaluated, `encoders` those of the study to ask. Raises UserError
    for such subjects, and where it is unknown, unless the study sets
    `evaluate.allow_pretraining_subjects`. Weights of other software, which an encoder may have
    started from, never say what they were trained on: that gives a warning and no error, for no
    other file of such weights would say it.
    """
    several = len(study.encoders) > 1
    warnings: list[str] = []
    for name, bundle in encoders.items():
        which = f"The encoder {name}" if several else "The encoder"
        warnings += _encoder_warnings(study, scans, bundle, which)
    return " ".join(warnings)


def _encoder_warnings(
    study: Study, scans: Sequence[Entry | Scan], bundle: Path, encoder_label: str
) -> Iterator[str]:
    """The warnings about one encoder."""
    found = training_subjects.read(bundle)
    fault, way_out = _find_leakage(study, scans, bundle, found)
    if fault and not study.evaluate.allow_pretraining_subjects:
        raise UserError(
            f"{encoder_label} {fault}: {way_out}, or set evaluate.allow_pretraining_subjects "
            "to evaluate them all the same, which the results will say."
        )
    if fault:
        yield (
            f"{encoder_label} {fault}, and evaluate.allow_pretraining_subjects lets them be "
            "evaluated."
        )
    if found and found.is_third_party:
        yield (
            f"{encoder_label} started from weights of other software, which do not say which "
            f"subjects they were trained on, so some of the split {study.evaluate.split} may be "
            "among them."
        )


def _find_leakage(
    study: Study,
    scans: Sequence[Entry | Scan],
    bundle: Path,
    training_subjects: TrainingSubjects | None,
) -> tuple[str, str]:
    """What is wrong with an encoder, and the remedy; both empty where nothing is."""
    inventory = Inventory.read(layout.inventory_table(study))
    study.pseudonyms.check_salt(inventory.salt_fingerprint)
    split = study.evaluate.split
    unknown = f"so some of the split {split} may be among them"
    if training_subjects is None:
        fault = f"does not say which subjects it was trained on, {unknown}"
        return fault, "evaluate another encoder"
    scored = {entry.subject for entry in scans if entry.split == split}
    overlap = sorted(
        scored & training_subjects.overlapping_subjects(inventory.scans, inventory.salt_fingerprint)
    )
    if overlap:
        fault = f"was pretrained on {format_count(len(overlap), 'subject')} of the split {split}"
        return f"{fault}, such as {overlap[0]}", _remedy(study, bundle)
    if training_subjects.is_unknown:
        fault = f"started from one that does not say which subjects it was trained on, {unknown}"
        return fault, _remedy(study, bundle)
    if {training_subjects.salt_fingerprint} | training_subjects.other_salt_fingerprints != {
        inventory.salt_fingerprint
    }:
        fault = f"was pretrained on subjects that were coded with another salt, {unknown}"
        return fault, "share the `private` folder of the study that trained it"
    return "", ""


def _remedy(study: Study, bundle: Path) -> str:
    """How to get an encoder that was not pretrained on them."""
    if bundle != study.encoder:
        return "evaluate another encoder"
    if study.init_from or study.training.continue_from:
        return "pretrain anew without what it started from (init_from, training.continue_from)"
    return "raise training.cohort to pretrain anew"
