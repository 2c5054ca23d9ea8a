"""Nobody is scored whom the encoder has seen, unless the study says so, and then results say it."""

from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import trained_on
from ssl_pipeline.report.numerals import count
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.volumes.inventory import salt_of
from stages.study import Study


def warning(study: Study, catalog: Catalog, encoder: Path) -> str:
    """What results must say of subjects that the encoder has seen; empty where there are none.

    Raises UserError for such subjects, and where nobody can tell, unless `evaluate.allow_seen`.
    """
    fault, way_out = _fault(study, catalog, encoder)
    if fault and not study.evaluate.allow_seen:
        raise UserError(
            f"{fault}: {way_out}, or set evaluate.allow_seen to score them all the same, which the"
            " results will say."
        )
    return f"{fault}, and evaluate.allow_seen lets them be scored." if fault else ""


def _fault(study: Study, catalog: Catalog, encoder: Path) -> tuple[str, str]:
    """What is wrong, and what can be done about it."""
    salt = salt_of(study.folder / "inventory" / "scans.parquet")
    found, split = trained_on.read(encoder), study.evaluate.split
    if found is None:
        fault = "The encoder does not say whom it was trained on"
        return f"{fault}, so some of the split {split} may be among them", "judge another encoder"
    seen = sorted(found.seen(catalog.entries, split, salt))
    own = "raise training.cohort to pretrain anew"
    if seen:
        told = f"The encoder has seen {count(len(seen), 'subject')} of the split {split}"
        way_out = "judge another encoder" if study.evaluate.encoder else own
        return f"{told}, such as {seen[0]}", way_out
    if found.salt != salt:
        fault = "The encoder's subjects were coded with another salt"
        way_out = "share the `private` folder of the study that trained it"
        return f"{fault}, so some of the split {split} may be among them", way_out
    return "", ""
