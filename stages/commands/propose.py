"""Settings that fit a time: `ssl-pipeline estimate --hours 1` prints them as YAML to paste.

The cost model of `estimate` is asked of one study after another, from the largest crops that
`plan.memory_gib` allows to the smallest, and then again at coarser voxels. Each is fine-tuned for
as many steps as its labels suggest or, where that takes too long, for a half and a quarter of them.
The first that leaves time for enough steps of pretraining gets as many as fit.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml

from cluster.config import Cluster
from ssl_pipeline.config.automatic import AUTO
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.cost_model import training_bytes
from ssl_pipeline.io.records import read_record_if_whole
from ssl_pipeline.preprocess.plan import Plan, build_plan
from ssl_pipeline.progress import console
from ssl_pipeline.training.config import Training
from ssl_pipeline.types import triple
from stages.commands.estimate import estimate_stage
from stages.core import layout
from stages.core.planning import stored_spacing, with_plan, with_planned_spacing
from stages.core.resources import DatasetSize, dataset_size
from stages.core.stage_runs import stage_runs
from stages.core.study import Study
from stages.evaluation_inputs import evaluated_task

MEMORY_STEPS = 10  # halvings of the memory of a training step that are tried
COARSER = (1.0, 1.25, 1.6, 2.0)  # factors of the spacing
MIN_STEPS = 500  # of pretraining, with fewer of which less fine-tuning or a smaller crop is tried
FINETUNE_SHARES = (1.0, 0.5, 0.25)  # of the steps of fine-tuning that labels suggest
DIGITS = 3  # of mm


def print_proposal(study: Study, cluster: Cluster | None, hours: float) -> None:
    """Print the settings that fit. Raises UserError where none do."""
    if hours <= 0:
        raise UserError(f"--hours is {hours:g}: give the hours that the study may take.")
    found, wall_s = propose(study, dataset_size(study), cluster, hours)
    console.print(
        f"# By the estimate {study.name} takes {wall_s / 3600:.2g} of {hours:g} h with these "
        "settings: write them in place of its own.",
        soft_wrap=True,
    )
    print(yaml.safe_dump(_settings(found), sort_keys=False, default_flow_style=None), end="")


def propose(
    study: Study, dataset: DatasetSize, cluster: Cluster | None, hours: float
) -> tuple[Study, float]:
    """The study with settings that fit, and the seconds that it takes."""
    least = float("inf")
    if study.training.hours:
        study = study.model_copy(update={"training": _by_steps(study.training)})
    for candidate, own in _candidates(study, dataset):
        others_s, step_s = _wall_seconds(candidate, own, cluster)
        room = hours * 3600 - others_s
        steps = int(room / step_s) if step_s else candidate.training.steps
        if room > 0 and steps >= MIN_STEPS:
            training = candidate.training.model_copy(update={"steps": steps})
            return candidate.model_copy(update={"training": training}), others_s + steps * step_s
        least = min(least, others_s + MIN_STEPS * step_s)
    raise UserError(
        f"Nothing fits into {hours:g} h: with the smallest crops, the coarsest voxels and the "
        f"shortest fine-tuning it takes {least / 3600:.2g} h. Lower evaluate.seeds or "
        "evaluate.subjects, take fewer scans, or give more hours."
    )


def _by_steps(training: Training) -> Training:
    """The section with steps in place of hours, whose number is yet to be chosen."""
    return training.model_copy(update={"steps": MIN_STEPS, "hours": None, "continue_from": None})


def _candidates(study: Study, dataset: DatasetSize) -> Iterator[tuple[Study, DatasetSize]]:
    """Studies from the dearest to the cheapest, each with the sizes of its volumes."""
    plan = read_record_if_whole(Plan, layout.plan_file(study))
    plan = plan or build_plan(dataset.scans, study.plan.number)
    if not plan.roots:
        raise UserError("No usable scan is of the split train, so nothing can be planned.")
    memory_bytes = study.plan.memory_gib * 2**30
    for factor in COARSER:
        coarser = _with_coarser_voxels(study, plan, factor)
        own = replace(dataset, study=coarser)
        before = None
        for halvings in range(MEMORY_STEPS):
            memory = study.plan.memory_gib / 2**halvings
            candidate = with_plan(_with_open_crops(coarser, memory), plan)
            candidate = candidate.model_copy(update={"plan": study.plan})
            if candidate != before:
                before = candidate
                for share in FINETUNE_SHARES:
                    yield _with_finetuning(candidate, own, share, memory_bytes), own


def _with_open_crops(study: Study, memory_gib: float) -> Study:
    """The study with crops that a plan of this memory decides."""
    tasks = {
        name: task.model_copy(update={"crop_voxels": AUTO}) if task.HAS_FREE_CROP else task
        for name, task in study.tasks.items()
    }
    changed: dict[str, Any] = {
        "tasks": tasks,
        "plan": study.plan.model_copy(update={"memory_gib": memory_gib}),
        "views": study.views.model_copy(update={"crop_voxels": AUTO}),
    }
    return study.model_copy(update=changed)


def _with_finetuning(
    study: Study, dataset: DatasetSize, share: float, memory_bytes: float
) -> Study:
    """The study with a share of the steps of fine-tuning that the labels of each task suggest.

    A step has as many crops as the task suggests, or half as often as they exceed the memory.
    """
    tasks = dict(study.tasks)
    for name, task in study.tasks.items():
        if "finetune" in task.evaluation_stages:
            of = evaluated_task(dataset, study, name)
            open_steps = of.finetune.model_copy(update={"steps": 0})
            section = task.finetune_section(open_steps, of.labelled_subjects)
            while (
                section.batch_size > 1
                and training_bytes(task, section, of.model, of.crop) > memory_bytes
            ):
                section = section.model_copy(update={"batch_size": section.batch_size // 2})
            chosen = {
                "steps": math.ceil(share * section.steps),
                "batch_size": section.batch_size,
            }
            own = (task.finetune or Finetune()).model_copy(update=chosen)
            tasks[name] = task.model_copy(update={"finetune": own})
    return study.model_copy(update={"tasks": tasks})


def _with_coarser_voxels(study: Study, plan: Plan, factor: float) -> Study:
    """The study with the planned or given spacing of every root times a factor."""
    study = with_planned_spacing(study, plan)
    if factor == 1:
        return study
    sections = {}
    for key, modality in (("ct", "CT"), ("mr", "MR")):
        section = study.preprocess.modality_settings(modality)
        spacings = {
            root.root: triple(
                round(factor * mm, DIGITS) for mm in stored_spacing(study.preprocess, root)
            )
            for root in plan.roots
            if root.modality == modality
        }
        common = next(iter(spacings.values()), section.spacing_mm)
        by_root = {root: spacing for root, spacing in spacings.items() if spacing != common}
        changed = {"spacing_mm": common, "spacing_by_root": by_root}
        sections[key] = section.model_copy(update=changed)
    preprocess = study.preprocess.model_copy(update=sections)
    return study.model_copy(update={"preprocess": preprocess})


def _wall_seconds(
    study: Study, dataset: DatasetSize, cluster: Cluster | None
) -> tuple[float, float]:
    """Wall time of all stages but pretraining, and that of one step of pretraining."""
    others_s = step_s = 0.0
    for part in stage_runs(study).values():
        wall_s = estimate_stage(part.stage, part.study, part.wildcards, dataset, cluster).wall_s
        if part.stage == "pretrain":
            step_s += wall_s / part.study.training.added_steps
        else:
            others_s += wall_s
    return others_s, step_s


def _settings(study: Study) -> dict[str, Any]:
    """What was chosen, as a study writes it."""
    spacing = {"spacing_mm", "spacing_by_root"}
    whole = study.model_dump(
        mode="json",
        include={
            "preprocess": {"ct": spacing, "mr": spacing},
            "views": {"crop_voxels"},
            "model": {"name", "patch_voxels", "strides", "kernel_sizes"},
            "training": {"steps", "batch_size"},
        },
    )
    tasks = {
        name: {
            "crop_voxels": list(task.crop_voxels or ()),
            "finetune": (task.finetune or Finetune()).model_dump(
                include={"steps", "batch_size"}, exclude_defaults=True
            ),
        }
        for name, task in study.tasks.items()
    }
    settings: dict[str, Any] = _without_empty(whole | {"tasks": tasks})
    return settings


def _without_empty(value: Any) -> Any:
    """A mapping, and those in it, without the keys that say nothing."""
    if not isinstance(value, dict):
        return value
    found = {key: _without_empty(each) for key, each in value.items()}
    return {key: each for key, each in found.items() if each not in (None, {}, [])}
