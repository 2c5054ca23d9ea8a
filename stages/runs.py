"""Which run a study means: the frozen list of its volumes, its folder, and the run that it extends.

The list of volumes is frozen when a run starts: scans that come later wait until the study raises
`training.cohort`, for a week of GPU time is never restarted by a copied file. Every combination of
sections has a run folder of its own, so going back to an earlier one finds its weights again, and
so does a run that extends it.
"""

from pathlib import Path
from typing import Any

from ssl_pipeline.atomic import read_json, sha256_json, write_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.store.catalog import Catalog
from stages.study import Study

CHOSEN_BY = (  # what decides which volumes there are, and how they look
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
SECTIONS = ("seed", *CHOSEN_BY, "views", "model", "init_from", "objective", "training")
RUN_VERSION = 3  # raised when an earlier run cannot be gone on with


def run_folder(study: Study) -> Path:
    """Checkpoints and metrics of this combination of sections, cohort and start.

    Raises UserError where the weights that it starts from, or the list of the run that it extends,
    are not there.
    """
    told = [RUN_VERSION, study.sections_hash(SECTIONS, {}), drawn_from(study)]
    if study.init_from:
        told.append(study.init_from.sha256)
    if study.training.extends:
        told.append(run_folder(base_of(study)).name)
    return study.stage_folder("pretrain", {}) / "runs" / sha256_json(told)[:12]


def other_runs(study: Study) -> list[Path]:
    """Runs of other sections or cohorts than the present ones and those of the encoder."""
    runs = sorted((study.stage_folder("pretrain", {}) / "runs").glob("*"))
    kept = _kept_runs(study)
    return [run for run in runs if run not in kept] if kept else []


def old_checkpoints(study: Study) -> list[Path]:
    """Checkpoints before the newest one of the runs that are kept."""
    from ssl_pipeline.training.checkpoint import superseded

    return [path for run in _kept_runs(study) for path in superseded(run / "checkpoints")]


def base_of(study: Study) -> Study:
    """The same study as it was for the run that the present one extends.

    Raises UserError where the list of that run's volumes is not there.
    """
    assert study.training.extends
    earlier = study.model_copy(
        update={"training": study.training.model_copy(update=dict(study.training.extends))}
    )
    if not cohort_path(earlier).exists():
        raise no_base(study, "has never been started")
    return earlier


def no_base(study: Study, why: str) -> UserError:
    """What to do where the run to be extended is not there, or not whole."""
    base = study.training.extends
    assert base
    and_so = "these `extends`" if base.extends else "no `extends`"
    return UserError(
        f"training.extends names the run of {base.steps} steps on cohort {base.cohort}, which {why}"
        ": `python -m stages pretrain --config STUDY` makes it, where the study's `training` has "
        f"steps {base.steps}, cohort {base.cohort} and {and_so}."
    )


def ever_frozen(study: Study) -> dict[str, str]:
    """The frozen list, and those of the runs before that it goes on from."""
    before = ever_frozen(base_of(study)) if study.training.extends else {}
    return {**before, **frozen_list(study)}


def cohort_path(study: Study) -> Path:
    """Where the frozen list of the study's cohort is kept, by what decides which volumes count.

    Trials of an ablation share it, so that all are trained on the same volumes.
    """
    prepared = study.sections_hash(CHOSEN_BY, {})[:8]
    return study.folder / "pretrain" / f"cohort-{study.training.cohort}-{prepared}.json"


def frozen_list(study: Study) -> dict[str, str]:
    """The frozen list, id to checksum, in the order in which samples are drawn from it."""
    return {scan: sha256 for scan, sha256, *_ in _frozen(study)}


def frozen_weights(study: Study) -> dict[str, float]:
    """How often each volume of the frozen list is sampled, by id."""
    return {scan: more[0] for scan, _, *more in _frozen(study) if more}


def frozen_words(study: Study) -> dict[str, dict[str, Any]]:
    """What each volume of the frozen list said of itself then, `site` and `targets`, by id."""
    return {scan: more[1] for scan, _, *more in _frozen(study) if len(more) > 1}


def drawn_from(study: Study) -> list[tuple[str, Any]]:
    """All of the frozen list that a run depends on, to be hashed."""
    told = [*frozen_list(study).items(), *frozen_weights(study).items()]
    contrast = getattr(study.objective, "contrast", None)
    alike = contrast is not None and contrast.alike
    return [*told, *frozen_words(study).items()] if alike else told


def _frozen(study: Study) -> list[list[Any]]:
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


def _kept_runs(study: Study) -> list[Path]:
    """The present run, those that it goes on from, and that of the encoder.

    None where it cannot be told which they are: a frozen list, or what it starts from, is gone.
    """
    made = study.stage_folder("pretrain", {}) / "run.json"
    if not cohort_path(study).exists():
        return []
    try:
        kept = [run_folder(study)]
        while study.training.extends:
            study = base_of(study)
            kept.append(run_folder(study))
    except UserError:
        return []
    return [*kept, made.parent / read_json(made)["folder"]] if made.exists() else kept
