"""What a pair of views costs an objective: parameters, operations, memory; imports no torch.

The encoder's section counts its own pass; heads and decoder are counted here, by two operations a
parameter and token. A training step takes three such passes. The numbers kept of a transformer were
fitted to five CPU runs (tiny, S, B; crops of 16 to 96 voxels), all within 12 %; those of
convolutions are what autograd saves, within 7 %.
"""

import math
from dataclasses import dataclass

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.models.vit_config import BLOCK_NUMBERS, block_parameters
from ssl_pipeline.objectives import ObjectiveConfig
from ssl_pipeline.views.config import Views

VIEWS = 2
PASSES = 3  # forward passes that a training step takes as long as
FORWARD = 2  # operations a parameter and token of a forward pass
CROP_NUMBERS = 20  # a voxel of a crop: the batch, those read ahead, augmentation, the loss


@dataclass(frozen=True)
class Cost:
    """What training takes; `bytes` with numbers of 4 bytes."""

    parameters: int
    pair_flops: int
    pair_bytes: int


def cost(objective: ObjectiveConfig, model: ModelConfig, views: Views) -> Cost:
    """Of an objective around an encoder."""
    tokens = model.tokens(views.crop_voxels)
    seen = int(views.keep * tokens)
    parameters, flops = model.parameters, model.forward_flops(seen, views.crop_voxels)
    kept = model.kept_numbers(seen, views.crop_voxels)
    reconstruction = getattr(objective, "reconstruction", None)
    if reconstruction is not None:
        width = reconstruction.decoder_width or model.width // 2
        depth = reconstruction.decoder_depth
        voxels = math.prod(model.patch_voxels)
        decoder = (model.width + 2) * width + block_parameters(width, depth) + 2 * width
        decoder += (width + 1) * voxels
        decoded = seen + round(reconstruction.decode * (tokens - seen))
        parameters, flops = parameters + decoder, flops + FORWARD * decoded * decoder
        kept += decoded * BLOCK_NUMBERS * width * depth
    contrast = getattr(objective, "contrast", None)
    if contrast is not None:
        hidden = 4 * model.width
        head = (model.width + 1) * hidden + 2 * hidden + (hidden + 1) * contrast.dim
        parameters, flops = parameters + 2 * head, flops + FORWARD * (seen + 1) * head
        kept += seen * (3 * hidden + contrast.dim)
    numbers = kept + CROP_NUMBERS * math.prod(views.crop_voxels)
    return Cost(parameters, VIEWS * PASSES * flops, VIEWS * 4 * numbers)
