"""Validation of a study across its sections.

Each section validates itself; what one section says about another is checked here, when the study
is read: a misspelt label that the first evaluation finds has cost the whole pretraining by then.
What only a table or the files can tell is left to the stages.
"""

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ssl_pipeline.config.automatic import is_auto
from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.io.text import clean_text
from ssl_pipeline.registry.registry import CHAMPION
from ssl_pipeline.types import Triple
from ssl_pipeline.volumes.config import Root, resolve_path
from stages.core.objective_validation import check_objectives, declared_metadata, objectives_of
from stages.core.study import Study

MIN_NORMED_TOKENS = 2


def check_study(study: Study) -> None:
    """Raise ValueError, in one sentence, for the first contradiction between sections."""
    if set("{}") & set(str(study.folder)):
        raise ValueError(
            f"output is {study.output}, in which braces would be wildcards of Snakemake: choose a "
            "folder without them"
        )
    _check_folders(study)
    _check_trials(study)
    _check_patch_multiple(study, "views.crop_voxels", study.views.crop_voxels)
    _check_visible_tokens(
        study, "views.crop_voxels", study.views.crop_voxels, study.views.visible_ratio
    )
    _check_local_crops(study)
    for key, section in (("ct", study.preprocess.ct), ("mr", study.preprocess.mr)):
        _check_root_names(study, f"preprocess.{key}.spacing_by_root", section.spacing_by_root)
    if study.training.continue_from:
        _check_root_names(study, "training.continue_from.roots", study.training.continue_from.roots)
    check_objectives(study)
    _check_task_titles(study)
    for name, task in study.tasks.items():
        _check_methods(study, name, task)
        _check_decoder(study, name)
        _check_mirroring(study, name, task)
        if task.crop_voxels:
            _check_patch_multiple(study, f"tasks.{name}.crop_voxels", task.crop_voxels)
            _check_visible_tokens(study, f"tasks.{name}.crop_voxels", task.crop_voxels, 1.0)
        roots = _task_roots(study, name, task)
        if study.data.table is None:  # which may name subjects
            _check_subject_rules(name, roots)
        _check_truth_declared(name, task, roots, study.data.targets)
    _check_metadata_declared(study)
    _check_features(study)
    _check_promotion(study)


def _check_features(study: Study) -> None:
    """Features of whole scans need probes of whole scans."""
    probed = (task for task in study.tasks.values() if "probe" in task.evaluation_stages)
    if study.evaluate.features and not any(task.TAKES_SCAN_FEATURES for task in probed):
        raise ValueError(
            "evaluate.features has vectors of whole scans, of which no task is probed: add one of "
            "kind classification or regression, or leave it out"
        )


def _check_promotion(study: Study) -> None:
    """The gate compares the study's own encoder with the champion, on tasks of the study."""
    if study.promote is None:
        return
    if study.ablate or not study.has_pretraining:
        raise ValueError(
            "promote is of the one encoder that the study trains: leave out ablate, and have an "
            "empty path among evaluate.encoders"
        )
    if CHAMPION in (*study.evaluate.encoders, *study.evaluate.features):
        raise ValueError(
            f"evaluate names {CHAMPION}, which means the registry's where a study has promote: "
            "choose another name"
        )
    for key, names in (("keep", study.promote.keep), ("gain", study.promote.gain)):
        for name in names:
            if name not in study.tasks:
                raise ValueError(
                    f"promote.{key} names {name}, which is no task: "
                    f"{suggest_name(name, study.tasks)}"
                )


def _check_trials(study: Study) -> None:
    """Trials train from the start, under names that tell them apart."""
    key = "ablate" if study.ablate else "scaling"
    if (study.ablate or study.scaling) and (
        study.training.continue_from or study.external_encoders
    ):
        raise ValueError(
            f"{key} trains encoders of its own from the start: leave training.continue_from and "
            f"evaluate.encoders out of this study, or {key}"
        )
    if study.ablate and study.training.hours:
        raise ValueError(
            "ablate compares objectives at the cost of equal FLOPs, which are counted for "
            "training.steps: give steps in place of training.hours"
        )
    if study.ablate and study.scaling:
        for name in study.ablate.arms.keys() & study.scaling.arms.keys():
            raise ValueError(f"ablate.arms.{name} is a length of scaling: choose another name")


def _check_folders(study: Study) -> None:
    """Results are passed on and private files are not; what stages write is no raw scan."""
    output, private = study.folder.resolve(), study.pseudonyms.private_folder.resolve()
    if private.is_relative_to(output) or study.pseudonyms.study_folder.resolve() == output:
        raise ValueError(
            f"paths of origin would lie in {private}, and results in {study.folder}, which may be "
            "passed on: name another `private`, or another `output`"
        )
    for root in study.data.roots:
        with suppress(UserError):  # a variable that is not set: the scans are elsewhere
            if output.is_relative_to(resolve_path(root.path).resolve()):
                raise ValueError(
                    f"output lies in the root {root.title}, where label maps that stages write "
                    "would be taken for scans: name another `output`"
                )


def _check_task_titles(study: Study) -> None:
    """The report knows tasks by their titles."""
    first: dict[str, str] = {}
    for name, task in study.tasks.items():
        title = clean_text(task.title).casefold()
        if not title:
            raise ValueError(f"tasks.{name}.title is empty: write one in visible letters")
        if (other := first.setdefault(title, name)) != name:
            raise ValueError(
                f"tasks.{other} and tasks.{name} have the title {task.title}: give each its own"
            )


def _check_methods(study: Study, name: str, task: TaskConfig) -> None:
    """Each adaptation method must support the backbone, and each task needs one that serves it."""
    finetune = study.finetune_of(name)
    for method in finetune.methods:
        if method.NEEDS_TRANSFORMER and not study.model.is_transformer:
            raise ValueError(
                f"finetune.methods has {method.name}, which works on the blocks of a transformer, "
                f"and model is {study.model.name}: leave it out"
            )
    is_robustness_needed = study.evaluates_robustness(name)
    if is_robustness_needed and finetune.keep_networks != "all":
        raise ValueError(
            "robustness evaluates the fine-tuned networks again: set finetune.keep_networks to "
            "all, or leave robustness out"
        )
    if not task.supported_methods(finetune):
        raise ValueError(
            f"tasks.{name} is a {task.kind}, which none of finetune.methods serves: add one "
            "that does, such as full"
        )
    if "robustness" in task.stages and not is_robustness_needed:
        raise ValueError(
            f"tasks.{name}.stages has robustness, which evaluates fine-tuned networks: add "
            "finetune to it, and a section robustness to the study"
        )
    if not task.evaluation_stages:
        raise ValueError(
            f"tasks.{name}.stages is {list(task.stages)}, and a task of kind {task.kind} is "
            f"evaluated by {' and '.join(task.SUPPORTED_STAGES)} alone: leave `stages` out"
        )


def _check_decoder(study: Study, name: str) -> None:
    """A decoder to start from must have been trained; of other encoders their bundles tell."""
    if not study.has_pretraining or not study.starts_from_decoder(name):
        return
    for key, objective in objectives_of(study)[1 if study.ablate else 0 :]:
        if not objective.trains_decoder:
            raise ValueError(
                f"finetune.decoder.start of tasks.{name} is pretrained, and {key} trains no U-Net's"
                " decoder: give a term of it decoder: unet, or start from random"
            )


def _check_mirroring(study: Study, name: str, task: TaskConfig) -> None:
    """A mirrored left is a right: their classes forbid mirroring along x."""
    if task.kind != "segmentation" or "x" not in study.finetune_of(name).augmentation.flip:
        return
    names = " ".join(task.class_names).casefold()
    if {"left", "right"} <= set(re.findall(r"(?<![a-z])(left|right)(?![a-z])", names)):
        raise ValueError(
            f"finetune.augmentation.flip has x, and tasks.{name} has classes of the left and of "
            "the right, which mirroring exchanges: leave x out, for this task at least"
        )


def _check_patch_multiple(study: Study, key: str, crop: Triple) -> None:
    patch = study.model.patch_voxels
    if is_auto(patch) or is_auto(crop):
        return
    if any(side % step for side, step in zip(crop, patch, strict=True)):
        raise ValueError(
            f"{key} is {list(crop)}, no multiple of model.patch_voxels, {list(patch)}: choose "
            "sides that the patch divides"
        )


def _check_visible_tokens(study: Study, key: str, crop: Triple, visible_ratio: float) -> None:
    """The encoder needs enough visible tokens of a crop, `visible_ratio` of all of them.

    The decoder of a U-Net norms tokens, of which one alone would be zero, as convolutions do.
    """
    if is_auto(study.model.patch_voxels) or is_auto(crop):
        return
    visible, least = int(visible_ratio * study.model.token_count(crop)), study.model.min_tokens
    if any(objective.trains_decoder for _, objective in objectives_of(study)):
        least = max(least, MIN_NORMED_TOKENS)
    if visible < least:
        raise ValueError(
            f"{key} is {list(crop)}, of whose tokens the encoder sees {visible} and needs {least}: "
            "choose larger crops, or a smaller model.patch_voxels"
        )


def _check_local_crops(study: Study) -> None:
    """Local crops are smaller than views, and a term asks of them."""
    local, crop, model = study.views.local_crops, study.views.crop_voxels, study.model
    if not local.number or is_auto(model.patch_voxels) or is_auto(crop):
        return
    grid = model.grid(crop)
    box = local.box(grid)
    if box == grid or math.prod(box) < model.min_tokens:
        raise ValueError(
            f"views.local_crops.share is {local.share:g}, which of views of {list(grid)} patches "
            f"takes {list(box)}: choose another share, larger crops or a smaller model.patch_voxels"
        )
    if not any("local" in t.passes for _, each in objectives_of(study) for t in each.list_terms()):
        raise ValueError(
            f"views.local_crops.number is {local.number}, and no term asks of local crops: choose "
            "an objective with the term dino, or leave local_crops out"
        )


def _check_metadata_declared(study: Study) -> None:
    """What scans are grouped or chosen by must be declared."""
    groups = {
        "data.splits.stratify": study.data.splits.stratify,
        "evaluate.subgroups": study.evaluate.subgroups,
        "promote.domains": study.promote.domains if study.promote else (),
        **{f"tasks.{name}.train_on": tuple(task.train_on) for name, task in study.tasks.items()},
        **{f"tasks.{name}.score_on": tuple(task.score_on) for name, task in study.tasks.items()},
    }
    known = declared_metadata(study)
    for key, names in groups.items():
        for name in names:
            if name not in known:
                raise ValueError(f"{key} names {name}: {suggest_name(name, known)}")


def _task_roots(study: Study, name: str, task: TaskConfig) -> list[Root]:
    """The roots whose scans a task takes."""
    _check_root_names(study, f"tasks.{name}.roots", task.roots)
    return [root for root in study.data.roots if not task.roots or root.title in task.roots]


def _check_root_names(study: Study, key: str, titles: Iterable[str]) -> None:
    """What a key names must be roots of the study, or its table."""
    of_table = [Path(study.data.table).stem] if study.data.table else []
    known = [*(root.title for root in study.data.roots), *of_table]
    for title in titles:
        if title not in known:
            raise ValueError(f"{key} names {title}: {suggest_name(title, known)}")


def _check_subject_rules(name: str, roots: Iterable[Root]) -> None:
    for root in roots:
        if root.subject is None and root.layout != "bids":
            raise ValueError(
                f"tasks.{name} takes scans of root {root.title}, which does not say which subject "
                "they are of, and a split by file would leak: give the root a `subject` rule, or "
                "leave it out with the task's `roots`"
            )


def _check_truth_declared(
    name: str, task: TaskConfig, roots: Iterable[Root], columns: Iterable[str]
) -> None:
    """The labels or target of a task must be declared by one of its roots, or by the table."""
    for truth in task.truth_names():
        known = {word for root in roots for word in truth.find_in(root)}
        known |= set(columns) if truth.kind == "target" else set()
        if truth.name not in known:
            tail = (
                suggest_name(truth.name, known)
                if known
                else f"neither its roots nor `data` declare `{truth.kind}s`."
            )
            raise ValueError(
                f"tasks.{name}.{truth.key} is {truth.name}, which is not known: {tail}"
            )
