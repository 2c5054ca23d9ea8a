"""Pretraining runs of a study: their cohorts, their folders, and the run that one continues from.

The cohort, a list of volumes, is frozen when a run starts: scans that come later wait until the
study raises `training.cohort`, for a week of GPU time is never restarted by a copied file. Every
combination of sections has a run folder of its own, so going back to an earlier one finds its
weights again, and so does a run that continues from it.
"""

from pathlib import Path
from typing import Any

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import read_json, sha256_json, write_json
from ssl_pipeline.store.catalog import Catalog
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


def run_folder(study: Study) -> Path:
    """The folder of checkpoints and metrics for these sections, this cohort and these weights.

    Raises UserError where the weights that it starts from, or the cohort of the run that it
    continues from, are not there.
    """
    hashed = [RUN_VERSION, study.sections_hash(HASHED_KEYS, {}), cohort_hash_items(study)]
    if study.init_from:
        hashed.append(study.init_from.sha256)
    if study.training.continue_from:
        hashed.append(run_folder(parent_study(study)).name)
    return study.stage_folder("pretrain", {}) / "runs" / sha256_json(hashed)[:12]


def stale_runs(study: Study) -> list[Path]:
    """Run folders that neither the present settings and cohort nor the encoder use."""
    runs = sorted((study.stage_folder("pretrain", {}) / "runs").glob("*"))
    kept = _needed_runs(study)
    return [run for run in runs if run not in kept] if kept else []


def stale_checkpoints(study: Study) -> list[Path]:
    """Checkpoints before the newest one of the runs that are needed."""
    from ssl_pipeline.training.checkpoint import superseded_files

    return [path for run in _needed_runs(study) for path in superseded_files(run / "checkpoints")]


def parent_study(study: Study) -> Study:
    """The study with the settings of the run that the present one continues from.

    Raises UserError where that run's cohort is not there.
    """
    assert study.training.continue_from
    earlier = study.model_copy(
        update={"training": study.training.model_copy(update=dict(study.training.continue_from))}
    )
    if not cohort_path(earlier).exists():
        raise missing_parent_error(study, "has never been started")
    return earlier


def missing_parent_error(study: Study, reason: str) -> UserError:
    """The error where the run to continue from is not there, or not complete."""
    base = study.training.continue_from
    assert base
    its_own = "this `continue_from`" if base.continue_from else "no `continue_from`"
    return UserError(
        f"training.continue_from names the run of {base.steps} steps on cohort {base.cohort}, "
        f"which {reason}: `python -m stages pretrain --config STUDY` makes it, where the study's "
        f"`training` has steps {base.steps}, cohort {base.cohort} and {its_own}."
    )


def lineage_volumes(study: Study) -> dict[str, str]:
    """Volumes of this run's cohort and of all runs that it continues from, id to checksum."""
    before = lineage_volumes(parent_study(study)) if study.training.continue_from else {}
    return {**before, **cohort_volumes(study)}


def cohort_path(study: Study) -> Path:
    """The file of the study's frozen cohort, named by the settings that decide its volumes.

    Trials of an ablation share it, so that all are trained on the same volumes.
    """
    prepared = study.sections_hash(COHORT_KEYS, {})[:8]
    return study.folder / "pretrain" / f"cohort-{study.training.cohort}-{prepared}.json"


def cohort_volumes(study: Study) -> dict[str, str]:
    """Volumes of the cohort, id to checksum, in the order in which samples are drawn from it."""
    return {scan: sha256 for scan, sha256, *_ in _read_or_freeze_cohort(study)}


def cohort_weights(study: Study) -> dict[str, float]:
    """Sampling weight of each volume of the cohort, by id."""
    return {scan: more[0] for scan, _, *more in _read_or_freeze_cohort(study) if more}


def cohort_metadata(study: Study) -> dict[str, dict[str, Any]]:
    """Metadata of each volume when the cohort was frozen, `site` and `targets`, by id."""
    return {scan: more[1] for scan, _, *more in _read_or_freeze_cohort(study) if len(more) > 1}


def cohort_hash_items(study: Study) -> list[tuple[str, Any]]:
    """All parts of the cohort that a run depends on, to be hashed."""
    items = [*cohort_volumes(study).items(), *cohort_weights(study).items()]
    reads_metadata = study.objective.metadata_used()
    return [*items, *cohort_metadata(study).items()] if reads_metadata else items


def _read_or_freeze_cohort(study: Study) -> list[list[Any]]:
    """Id, checksum, weight and metadata of each volume, frozen when the cohort is first needed.

    They decide what is sampled from then on. Earlier files have no weights, or no metadata.
    """
    path = cohort_path(study)
    if not path.exists():
        catalog = Catalog.read(study.folder / "preprocess" / "catalog.parquet")
        entries = [e for e in catalog.entries if e.split in ("train", "")]
        if not entries:
            raise UserError(
                "No volume belongs to the split train: see data.splits, or the split column."
            )
        metadata = [{"site": e.site, "targets": e.targets} for e in entries]
        rows = [[e.id, e.sha256, e.weight, m] for e, m in zip(entries, metadata, strict=True)]
        write_json(path, rows)
    found: list[list[Any]] = read_json(path)
    return found


def _needed_runs(study: Study) -> list[Path]:
    """The present run, those that it continues from, and that of the encoder.

    Empty where they cannot be determined: a cohort, or what a run starts from, is gone.
    """
    made = study.stage_folder("pretrain", {}) / "run.json"
    if not cohort_path(study).exists():
        return []
    try:
        kept = [run_folder(study)]
        while study.training.continue_from:
            study = parent_study(study)
            kept.append(run_folder(study))
    except UserError:
        return []
    return [*kept, made.parent / read_json(made)["folder"]] if made.exists() else kept
