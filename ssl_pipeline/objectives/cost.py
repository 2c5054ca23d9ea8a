"""Cost of an objective per sample: parameters, operations, memory; imports no torch.

The encoder's section counts its passes, and each term its head. A training step takes as long as
three forward passes. The numbers kept of a transformer were fitted to five CPU runs (tiny, S, B;
crops of 16 to 96 voxels), all within 12 %; those of convolutions are what autograd saves, within
7 %.
"""

import math
from dataclasses import dataclass

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.models.unet_config import unet_size
from ssl_pipeline.objectives import ObjectiveConfig
from ssl_pipeline.views.config import Views

VIEWS_PER_SAMPLE = 2
FORWARD_PASSES_PER_STEP = 3  # forward passes that a training step takes as long as
VALUES_PER_VOXEL = 20  # a voxel of a crop: the batch, those read ahead, augmentation, the loss


@dataclass(frozen=True)
class TrainingCost:
    """Cost of training; `sample_bytes` with numbers of 4 bytes."""

    parameter_count: int  # that are trained
    teacher_parameter_count: int  # of a teacher or of the initial encoder, where a term has one
    sample_flops: int
    sample_bytes: int


def training_cost(objective: ObjectiveConfig, model: ModelConfig, views: Views) -> TrainingCost:
    """The cost of an objective with an encoder."""
    terms, tokens = objective.list_terms(), model.token_count(views.crop_voxels)
    visible = int(views.visible_ratio * tokens)
    seen = {"sparse": visible, "dense": tokens}  # tokens of a pass
    names = frozenset[str]().union(*(term.passes for term in terms))
    # A pass through the decoder is one of the encoder too, which serves both.
    passes = [seen[name] for name in seen if names & {name, f"{name}_unet"}]
    if "local" in names:
        box = views.local_crops.box(model.grid(views.crop_voxels))
        passes += [math.prod(box)] * views.local_crops.number
    decoder, decoded = unet_size(model, views.crop_voxels), len(names & {f"{s}_unet" for s in seen})
    heads = [term.cost(model, visible, tokens - visible) for term in terms]
    flops = sum(model.forward_flops(count, views.crop_voxels) for count in passes)
    flops += sum(head.forward_flops for head in heads) + decoded * decoder.forward_flops
    kept = sum(model.activation_count(count, views.crop_voxels) for count in passes)
    kept += sum(head.activation_count for head in heads) + decoded * decoder.activation_count
    numbers = kept + VALUES_PER_VOXEL * math.prod(views.crop_voxels)
    untrained = {"teacher": tokens, "initial": visible}  # passes without a gradient, and tokens
    others = [untrained[name] for name in untrained if name in names]
    teacher_flops = sum(model.forward_flops(count, views.crop_voxels) for count in others)
    teacher_flops += sum(head.teacher_flops for head in heads)
    return TrainingCost(
        model.parameter_count
        + sum(head.parameter_count for head in heads)
        + (decoded > 0) * decoder.parameter_count,
        len(others) * model.parameter_count + sum(head.teacher_parameter_count for head in heads),
        VIEWS_PER_SAMPLE * (FORWARD_PASSES_PER_STEP * flops + teacher_flops),
        VIEWS_PER_SAMPLE * 4 * numbers,
    )
