"""Nobody is scored whom the encoder has seen, unless the study says so, and then results say it."""

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import trained_on
from ssl_pipeline.report.numerals import count
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.volumes.inventory import Inventory
from stages.study import Study


def warning(study: Study, catalog: Catalog) -> str:
    """What results must say of subjects that the encoder has seen; empty where there are none.

    Raises UserError for such subjects, and where nobody can tell, unless `evaluate.allow_seen`.
    """
    fault, way_out = _fault(study, catalog)
    if fault and not study.evaluate.allow_seen:
        raise UserError(
            f"{fault}: {way_out}, or set evaluate.allow_seen to score them all the same, which the"
            " results will say."
        )
    return f"{fault}, and evaluate.allow_seen lets them be scored." if fault else ""


def _fault(study: Study, catalog: Catalog) -> tuple[str, str]:
    """What is wrong, and what can be done about it."""
    inventory = Inventory.read(study.folder / "inventory" / "scans.parquet")
    study.origins.check(inventory.salt)
    found, split = trained_on.read(study.encoder), study.evaluate.split
    unknown = f"so some of the split {split} may be among them"
    if found is None:
        fault = f"The encoder does not say whom it was trained on, {unknown}"
        return fault, "judge another encoder"
    scored = {entry.subject for entry in catalog.entries if entry.split == split}
    seen = sorted(scored & found.seen(inventory.scans, inventory.salt))
    if seen:
        fault = f"The encoder has seen {count(len(seen), 'subject')} of the split {split}"
        own = "raise training.cohort to pretrain anew"
        return f"{fault}, such as {seen[0]}", own if study.pretrains else "judge another encoder"
    if found.salt != inventory.salt:
        fault = f"The encoder's subjects were coded with another salt, {unknown}"
        return fault, "share the `private` folder of the study that trained it"
    return "", ""
