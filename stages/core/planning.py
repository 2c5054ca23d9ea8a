"""Planned values of a study: what it leaves `auto`, filled in from the plan of its inventory.

First the spacing of each root; then, at the spacing of the root with most training scans, the
crop of pretraining and the network; then the crop of each task, at that of its own roots and in
steps of the network's patch. A study without `auto` is left as it is.
"""

from collections.abc import Sequence

from ssl_pipeline.config.automatic import is_auto
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cost_model import training_bytes
from ssl_pipeline.models import ModelConfig, ResEnc
from ssl_pipeline.models.topology import plan_crop, plan_patch, plan_topology
from ssl_pipeline.objectives.cost import training_cost
from ssl_pipeline.preprocess.config import ModalitySettings, Preprocess
from ssl_pipeline.preprocess.plan import Plan, RootPlan, build_plan
from ssl_pipeline.types import Shape, Spacing, Triple
from ssl_pipeline.volumes.inventory import Scan
from stages.core.study import Study


def has_auto(study: Study) -> bool:
    """Whether it leaves anything to a plan."""
    spacings = (study.preprocess.ct.spacing_mm, study.preprocess.mr.spacing_mm)
    crops = (study.views.crop_voxels, *(task.crop_voxels for task in study.tasks.values()))
    return any(map(is_auto, (*spacings, *crops, study.model.patch_voxels)))


def require_plan(study: Study) -> None:
    """Raise UserError where something is `auto` and there is no plan to fill it in."""
    if has_auto(study):
        raise UserError(
            "The study has settings that are auto, and no plan fills them in: run the stage "
            "inventory, which makes it of the training scans, or give the settings."
        )


def plan_from_scans(study: Study, scans: Sequence[Scan]) -> Study:
    """The study as these scans would have it planned, for an estimate before its inventory."""
    return with_plan(study, build_plan(scans, study.plan.number)) if has_auto(study) else study


def with_plan(study: Study, plan: Plan) -> Study:
    """The study with planned values for all that is `auto`."""
    if not has_auto(study):
        return study
    study = with_planned_spacing(study, plan)
    if not plan.roots:
        return study
    study = _with_planned_network(study, plan.roots[0])
    tasks = dict(study.tasks)
    for name, task in study.tasks.items():
        own = [root for root in plan.roots if not task.roots or root.root in task.roots]
        if is_auto(task.crop_voxels) and own:
            crop = _task_crop(study, name, own[0])
            tasks[name] = task.model_copy(update={"crop_voxels": crop})
    return study.model_copy(update={"tasks": tasks})


def with_planned_spacing(study: Study, plan: Plan) -> Study:
    """The study with a spacing of every root, and all else as it is."""
    ct = _planned_spacing(study.preprocess.ct, plan, "CT")
    mr = _planned_spacing(study.preprocess.mr, plan, "MR")
    preprocess = study.preprocess.model_copy(update={"ct": ct, "mr": mr})
    return study.model_copy(update={"preprocess": preprocess})


def _planned_spacing(section: ModalitySettings, plan: Plan, modality: str) -> ModalitySettings:
    """The section with the spacing of each root; scans of no planned root have the first one's."""
    if not is_auto(section.spacing_mm):
        return section
    planned = {each.root: each.spacing_mm for each in plan.roots if each.modality == modality}
    found = next(iter(planned.values()), None)
    by_root = {root: spacing for root, spacing in planned.items() if spacing != found}
    changed = {"spacing_mm": found, "spacing_by_root": by_root | section.spacing_by_root}
    return section.model_copy(update=changed)


def stored_spacing(preprocess: Preprocess, root: RootPlan) -> Spacing:
    """The spacing of the volumes of a root; the planned one where each scan keeps its own."""
    own = preprocess.for_roots([root.root]).modality_settings(root.modality).spacing_mm
    return own or root.spacing_mm


def _stored_grid(study: Study, root: RootPlan) -> tuple[Spacing, Shape]:
    """Spacing and median shape of the volumes of a root."""
    spacing = stored_spacing(study.preprocess, root)
    return spacing, root.shape(spacing)


def _with_planned_network(study: Study, root: RootPlan) -> Study:
    """The study with the patch of the encoder, and crops of pretraining that it divides."""
    spacing, shape = _stored_grid(study, root)
    is_patch_open = is_auto(study.model.patch_voxels)

    def model_for(crop: Shape) -> ModelConfig:
        return _planned_model(study.model, spacing, crop) if is_patch_open else study.model

    def fits(crop: Shape) -> bool:
        views = study.views.model_copy(update={"crop_voxels": crop})
        cost = training_cost(study.objective, model_for(crop), views)
        samples = study.training.batch_size / study.training.gradient_accumulation
        return samples * cost.sample_bytes <= _budget_bytes(study)

    crop = study.views.crop_voxels
    if is_auto(crop):
        crop = plan_crop(spacing, shape, lambda each: model_for(each).patch_voxels, fits)
    views = study.views.model_copy(update={"crop_voxels": crop})
    return study.model_copy(update={"views": views, "model": model_for(crop)})


def _planned_model(model: ModelConfig, spacing: Spacing, crop: Shape) -> ModelConfig:
    """The encoder for crops of about this size."""
    if not isinstance(model, ResEnc):
        return model.model_copy(update={"patch_voxels": plan_patch(spacing)})
    topology = plan_topology(spacing, crop)
    changed = {"patch_voxels": topology.reduction, **topology._asdict()}
    return model.model_copy(update=changed)


def _task_crop(study: Study, name: str, root: RootPlan) -> Triple:
    """The crop of a task, for which the strides of the encoder are fixed."""
    task, model = study.tasks[name], study.model
    section = task.finetune_section(study.finetune_of(name), 1)
    spacing, shape = _stored_grid(study, root)

    def fits(crop: Shape) -> bool:
        return training_bytes(task, section, model, crop) <= _budget_bytes(study)

    return plan_crop(spacing, shape, lambda _: model.patch_voxels, fits)


def _budget_bytes(study: Study) -> float:
    return study.plan.memory_gib * 2**30
