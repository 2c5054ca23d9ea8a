"""Cost of an objective per sample: parameters, operations, memory; imports no torch.

The encoder's section counts its own pass; heads and decoder are counted here, by two operations a
parameter and token. A training step takes three such passes. The numbers kept of a transformer were
fitted to five CPU runs (tiny, S, B; crops of 16 to 96 voxels), all within 12 %; those of
convolutions are what autograd saves, within 7 %.
"""

import math
from dataclasses import dataclass

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.models.vit_config import ACTIVATIONS_PER_BLOCK, block_parameters
from ssl_pipeline.objectives import ObjectiveConfig
from ssl_pipeline.views.config import Views

VIEWS_PER_SAMPLE = 2
FORWARD_PASSES_PER_STEP = 3  # forward passes that a training step takes as long as
FLOPS_PER_PARAMETER = 2  # operations a parameter and token of a forward pass
VALUES_PER_VOXEL = 20  # a voxel of a crop: the batch, those read ahead, augmentation, the loss


@dataclass(frozen=True)
class TrainingCost:
    """Cost of training; `sample_bytes` with numbers of 4 bytes."""

    parameter_count: int
    sample_flops: int
    sample_bytes: int


def training_cost(objective: ObjectiveConfig, model: ModelConfig, views: Views) -> TrainingCost:
    """The cost of an objective with an encoder."""
    tokens = model.token_count(views.crop_voxels)
    visible = int(views.visible_ratio * tokens)
    parameters, flops = model.parameter_count, model.forward_flops(visible, views.crop_voxels)
    kept = model.activation_count(visible, views.crop_voxels)
    reconstruction = getattr(objective, "reconstruction", None)
    if reconstruction is not None:
        width = reconstruction.decoder_width or model.width // 2
        depth = reconstruction.decoder_depth
        voxels = math.prod(model.patch_voxels)
        decoder = (model.width + 2) * width + block_parameters(width, depth) + 2 * width
        decoder += (width + 1) * voxels
        decoded = visible + round(reconstruction.decode_ratio * (tokens - visible))
        parameters, flops = parameters + decoder, flops + FLOPS_PER_PARAMETER * decoded * decoder
        kept += decoded * ACTIVATIONS_PER_BLOCK * width * depth
    contrast = getattr(objective, "contrast", None)
    if contrast is not None:
        hidden = 4 * model.width
        head = (model.width + 1) * hidden + 2 * hidden + (hidden + 1) * contrast.projection_dim
        parameters, flops = (
            parameters + 2 * head,
            flops + FLOPS_PER_PARAMETER * (visible + 1) * head,
        )
        kept += visible * (3 * hidden + contrast.projection_dim)
    numbers = kept + VALUES_PER_VOXEL * math.prod(views.crop_voxels)
    return TrainingCost(
        parameters,
        VIEWS_PER_SAMPLE * FORWARD_PASSES_PER_STEP * flops,
        VIEWS_PER_SAMPLE * 4 * numbers,
    )
