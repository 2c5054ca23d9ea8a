"""What a pair of views costs an objective: parameters, operations, memory; imports no torch.

Counted from the sizes of the layers. A training step takes three passes of two operations a
parameter and token; attention's own products are left out, a few percent at these lengths. The
numbers kept were fitted to five CPU runs (tiny, S, B; crops of 16 to 96 voxels), all within 12 %.
"""

import math
from dataclasses import dataclass

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.models.vit_config import block_parameters
from ssl_pipeline.objectives import ObjectiveConfig
from ssl_pipeline.views.config import Views

VIEWS = 2
STEP = 6  # operations a parameter and token of a training step; 2 of them in the forward pass
BLOCK_NUMBERS = 16  # a block keeps so many numbers for each of a token's, for the way back
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
    parameters, work = model.parameters, seen * model.parameters
    kept = seen * BLOCK_NUMBERS * model.width * model.depth
    reconstruction = getattr(objective, "reconstruction", None)
    if reconstruction is not None:
        width = reconstruction.decoder_width or model.width // 2
        depth = reconstruction.decoder_depth
        voxels = math.prod(model.patch_voxels)
        decoder = (model.width + 2) * width + block_parameters(width, depth) + 2 * width
        decoder += (width + 1) * voxels
        parameters, work = parameters + decoder, work + tokens * decoder
        kept += tokens * BLOCK_NUMBERS * width * depth
    contrast = getattr(objective, "contrast", None)
    if contrast is not None:
        hidden = 4 * model.width
        head = (model.width + 1) * hidden + 2 * hidden + (hidden + 1) * contrast.dim
        parameters, work = parameters + 2 * head, work + (seen + 1) * head
        kept += seen * (3 * hidden + contrast.dim)
    numbers = kept + CROP_NUMBERS * math.prod(views.crop_voxels)
    return Cost(parameters, VIEWS * STEP * work, VIEWS * 4 * numbers)
