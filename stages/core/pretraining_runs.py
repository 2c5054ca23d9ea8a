"""Which run a study means: the frozen list of its volumes, its folder, and the run that it extends.

The list of volumes is frozen when a run starts: scans that come later wait until the study raises
`training.cohort`, for a week of GPU time is never restarted by a copied file. Every combination of
sections has a run folder of its own, so going back to an earlier one finds its weights again, and
so does a run that extends it.
"""

from pathlib import Path
from typing import Any

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import read_json, sha256_json, write_json
from ssl_pipeline.store.catalog import Catalog
from stages.core.study import Study

COHORT_KEYS = (  # what decides which volumes there are, and how they look
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
RUN_VERSION = 3  # raised when an earlier run cannot be gone on with


def run_folder(study: Study) -> Path:
    """Checkpoints and metrics of this combination of sections, cohort and start.

    Raises UserError where the weights that it starts from, or the list of the run that it extends,
    are not there.
    """
    told = [RUN_VERSION, study.sections_hash(HASHED_KEYS, {}), cohort_hash_items(study)]
    if study.init_from:
        told.append(study.init_from.sha256)
    if study.training.continue_from:
        told.append(run_folder(parent_study(study)).name)
    return study.stage_folder("pretrain", {}) / "runs" / sha256_json(told)[:12]


def stale_runs(study: Study) -> list[Path]:
    """Runs of other sections or cohorts than the present ones and those of the encoder."""
    runs = sorted((study.stage_folder("pretrain", {}) / "runs").glob("*"))
    kept = _needed_runs(study)
    return [run for run in runs if run not in kept] if kept else []


def stale_checkpoints(study: Study) -> list[Path]:
    """Checkpoints before the newest one of the runs that are kept."""
    from ssl_pipeline.training.checkpoint import superseded_files

    return [path for run in _needed_runs(study) for path in superseded_files(run / "checkpoints")]


def parent_study(study: Study) -> Study:
    """The same study as it was for the run that the present one extends.

    Raises UserError where the list of that run's volumes is not there.
    """
    assert study.training.continue_from
    earlier = study.model_copy(
        update={"training": study.training.model_copy(update=dict(study.training.continue_from))}
    )
    if not cohort_path(earlier).exists():
        raise missing_parent_error(study, "has never been started")
    return earlier


def missing_parent_error(study: Study, reason: str) -> UserError:
    """What to do where the run to be extended is not there, or not whole."""
    base = study.training.continue_from
    assert base
    and_so = "these `extends`" if base.continue_from else "no `extends`"
    return UserError(
        f"training.extends names the run of {base.steps} steps on cohort {base.cohort}, which {reason}"
        ": `python -m stages pretrain --config STUDY` makes it, where the study's `training` has "
        f"steps {base.steps}, cohort {base.cohort} and {and_so}."
    )


def lineage_volumes(study: Study) -> dict[str, str]:
    """The frozen list, and those of the runs before that it goes on from."""
    before = lineage_volumes(parent_study(study)) if study.training.continue_from else {}
    return {**before, **cohort_volumes(study)}


def cohort_path(study: Study) -> Path:
    """Where the frozen list of the study's cohort is kept, by what decides which volumes count.

    Trials of an ablation share it, so that all are trained on the same volumes.
    """
    prepared = study.sections_hash(COHORT_KEYS, {})[:8]
    return study.folder / "pretrain" / f"cohort-{study.training.cohort}-{prepared}.json"


def cohort_volumes(study: Study) -> dict[str, str]:
    """The frozen list, id to checksum, in the order in which samples are drawn from it."""
    return {scan: sha256 for scan, sha256, *_ in _read_or_freeze_cohort(study)}


def cohort_weights(study: Study) -> dict[str, float]:
    """How often each volume of the frozen list is sampled, by id."""
    return {scan: more[0] for scan, _, *more in _read_or_freeze_cohort(study) if more}


def cohort_metadata(study: Study) -> dict[str, dict[str, Any]]:
    """What each volume of the frozen list said of itself then, `site` and `targets`, by id."""
    return {scan: more[1] for scan, _, *more in _read_or_freeze_cohort(study) if len(more) > 1}


def cohort_hash_items(study: Study) -> list[tuple[str, Any]]:
    """All of the frozen list that a run depends on, to be hashed."""
    told = [*cohort_volumes(study).items(), *cohort_weights(study).items()]
    contrast = getattr(study.objective, "contrast", None)
    alike = contrast is not None and contrast.alike
    return [*told, *cohort_metadata(study).items()] if alike else told


def _read_or_freeze_cohort(study: Study) -> list[list[Any]]:
    """Id, checksum, weight and words of each volume, written when the cohort is first asked for.

    They decide what is drawn from then on. Earlier lists have no weights, or no words.
    """
    path = cohort_path(study)
    if not path.exists():
        catalog = Catalog.read(study.folder / "preprocess" / "catalog.parquet")
        entries = [e for e in catalog.entries if e.split in ("train", "")]
        if not entries:
            raise UserError(
                "No volume belongs to the split train: see data.splits, or the split column."
            )
        said = [{"site": e.site, "targets": e.targets} for e in entries]
        rows = [[e.id, e.sha256, e.weight, words] for e, words in zip(entries, said, strict=True)]
        write_json(path, rows)
    found: list[list[Any]] = read_json(path)
    return found


def _needed_runs(study: Study) -> list[Path]:
    """The present run, those that it goes on from, and that of the encoder.

    None where it cannot be told which they are: a frozen list, or what it starts from, is gone.
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
