"""Nobody is scored whom the encoder has seen, unless the study says so, and then results say it."""

from collections.abc import Iterator
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import trained_on
from ssl_pipeline.export.trained_on import TrainedOn
from ssl_pipeline.report.numerals import count
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.volumes.inventory import Inventory
from stages.study import Study


def warning(study: Study, catalog: Catalog) -> str:
    """What results must say of subjects that the encoder has seen; empty where there are none.

    Raises UserError for such subjects, and where nobody can tell, unless `evaluate.allow_seen`.
    Weights of other software, which an encoder may have started from, never say whom they have
    seen: that is told first, and refused by nobody, for no other file would tell it.
    """
    several = len(study.encoders) > 1
    told: list[str] = []
    for name, bundle in study.encoders.items():
        which = f"The encoder {name}" if several else "The encoder"
        told += _told(study, catalog, bundle, which)
    return " ".join(told)


def _told(study: Study, catalog: Catalog, bundle: Path, which: str) -> Iterator[str]:
    """The same of one encoder."""
    found = trained_on.read(bundle)
    fault, way_out = _fault(study, catalog, bundle, found)
    if fault and not study.evaluate.allow_seen:
        raise UserError(
            f"{which} {fault}: {way_out}, or set evaluate.allow_seen to score them all the same, "
            "which the results will say."
        )
    if fault:
        yield f"{which} {fault}, and evaluate.allow_seen lets them be scored."
    if found and found.foreign:
        yield (
            f"{which} started from weights of other software, which do not say whom they were "
            f"trained on, so some of the split {study.evaluate.split} may be among them."
        )


def _fault(
    study: Study, catalog: Catalog, bundle: Path, found: TrainedOn | None
) -> tuple[str, str]:
    """What is wrong with an encoder, and what can be done about it."""
    inventory = Inventory.read(study.folder / "inventory" / "scans.parquet")
    study.origins.check(inventory.salt)
    split = study.evaluate.split
    unknown = f"so some of the split {split} may be among them"
    if found is None:
        fault = f"does not say whom it was trained on, {unknown}"
        return fault, "judge another encoder"
    scored = {entry.subject for entry in catalog.entries if entry.split == split}
    seen = sorted(scored & found.seen(inventory.scans, inventory.salt))
    if seen:
        fault = f"has seen {count(len(seen), 'subject')} of the split {split}"
        return f"{fault}, such as {seen[0]}", _another(study, bundle)
    if found.untold:
        fault = f"started from one that does not say whom it was trained on, {unknown}"
        return fault, _another(study, bundle)
    if {found.salt} | found.other_salts != {inventory.salt}:
        fault = f"has seen subjects that were coded with another salt, {unknown}"
        return fault, "share the `private` folder of the study that trained it"
    return "", ""


def _another(study: Study, bundle: Path) -> str:
    """How to come by an encoder that has not seen them."""
    if bundle != study.encoder:
        return "judge another encoder"
    if study.init_from or study.training.extends:
        return "pretrain anew without what it started from (init_from, training.extends)"
    return "raise training.cohort to pretrain anew"
