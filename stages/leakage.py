"""Nobody is scored whom the encoder has seen, unless the study says so, and then results say it."""

from collections.abc import Iterator
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.training_subjects import TrainingSubjects
from ssl_pipeline.formatting import format_count
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.volumes.inventory import Inventory
from stages.core.study import Study


def leakage_warning(study: Study, catalog: Catalog) -> str:
    """What results must say of subjects that the encoder has seen; empty where there are none.

    Raises UserError for such subjects, and where nobody can tell, unless `evaluate.allow_seen`.
    Weights of other software, which an encoder may have started from, never say whom they have
    seen: that is told first, and refused by nobody, for no other file would tell it.
    """
    several = len(study.encoders) > 1
    told: list[str] = []
    for name, bundle in study.encoders.items():
        which = f"The encoder {name}" if several else "The encoder"
        told += _encoder_warnings(study, catalog, bundle, which)
    return " ".join(told)


def _encoder_warnings(
    study: Study, catalog: Catalog, bundle: Path, encoder_label: str
) -> Iterator[str]:
    """The same of one encoder."""
    found = training_subjects.read(bundle)
    fault, way_out = _find_leakage(study, catalog, bundle, found)
    if fault and not study.evaluate.allow_pretraining_subjects:
        raise UserError(
            f"{encoder_label} {fault}: {way_out}, or set evaluate.allow_seen to score them all the same, "
            "which the results will say."
        )
    if fault:
        yield f"{encoder_label} {fault}, and evaluate.allow_seen lets them be scored."
    if found and found.is_third_party:
        yield (
            f"{encoder_label} started from weights of other software, which do not say whom they were "
            f"trained on, so some of the split {study.evaluate.split} may be among them."
        )


def _find_leakage(
    study: Study, catalog: Catalog, bundle: Path, training_subjects: TrainingSubjects | None
) -> tuple[str, str]:
    """What is wrong with an encoder, and what can be done about it."""
    inventory = Inventory.read(study.folder / "inventory" / "scans.parquet")
    study.pseudonyms.check_salt(inventory.salt_fingerprint)
    split = study.evaluate.split
    unknown = f"so some of the split {split} may be among them"
    if training_subjects is None:
        fault = f"does not say whom it was trained on, {unknown}"
        return fault, "judge another encoder"
    scored = {entry.subject for entry in catalog.entries if entry.split == split}
    seen = sorted(
        scored & training_subjects.overlapping_subjects(inventory.scans, inventory.salt_fingerprint)
    )
    if seen:
        fault = f"has seen {format_count(len(seen), 'subject')} of the split {split}"
        return f"{fault}, such as {seen[0]}", _remedy(study, bundle)
    if training_subjects.is_unknown:
        fault = f"started from one that does not say whom it was trained on, {unknown}"
        return fault, _remedy(study, bundle)
    if {training_subjects.salt_fingerprint} | training_subjects.other_salt_fingerprints != {
        inventory.salt_fingerprint
    }:
        fault = f"has seen subjects that were coded with another salt, {unknown}"
        return fault, "share the `private` folder of the study that trained it"
    return "", ""


def _remedy(study: Study, bundle: Path) -> str:
    """How to come by an encoder that has not seen them."""
    if bundle != study.encoder:
        return "judge another encoder"
    if study.init_from or study.training.continue_from:
        return "pretrain anew without what it started from (init_from, training.extends)"
    return "raise training.cohort to pretrain anew"
