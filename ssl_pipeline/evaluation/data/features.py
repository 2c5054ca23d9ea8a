"""Frozen features: the mean over an encoder's tokens that are at least half inside the scan."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ssl_pipeline.evaluation.data.crops import CropBatch
from ssl_pipeline.models.encoder import Encoder, FeatureInfo
from ssl_pipeline.types import Triple
from ssl_pipeline.views.patches import patch_share, pool_tokens


def pooled_features(
    encoder: Encoder,
    images: Float[Tensor, "batch z y x"],
    valid: Float[Tensor, "batch z y x"],
    spacing_mm: Float[Tensor, "batch 3"],
    blocks: int = 1,
) -> Float[Tensor, "batch blocks dim"]:
    """Mean over the valid tokens after each of the last `blocks` blocks, the last one first.

    Of an encoder whose blocks differ in resolution or width only the last one is used.
    """
    weight, info = valid_tokens(valid, encoder.patch), FeatureInfo(encoder.dim, encoder.patch)
    if blocks == 1 or any(each != info for each in encoder.feature_info[-blocks:]):
        return pool_tokens(encoder(images[:, None], spacing_mm), weight)[:, None]
    maps = encoder.forward_intermediates(images[:, None], spacing_mm)[-blocks:]
    return torch.stack(
        [pool_tokens(m.flatten(2).transpose(1, 2), weight) for m in maps[::-1]], dim=1
    )


def valid_tokens(
    valid: Float[Tensor, "batch z y x"], patch: Triple
) -> Float[Tensor, "batch tokens"]:
    """1 for tokens whose voxels are at least half valid, else 0."""
    return (patch_share(valid, patch) >= 0.5).to(valid.dtype)


def to_tensors(crops: CropBatch, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Images, valid voxels and spacing of a batch on a device."""
    parts = (crops.images, crops.valid, crops.spacing_mm)
    images, valid, spacing = (torch.from_numpy(part).to(device) for part in parts)
    return images, valid, spacing


def extract_features(
    encoder: Encoder, crops: Iterable[CropBatch], device: str, blocks: int = 1
) -> NDArray[np.float32]:
    """Features (n, blocks, dim) of crops that come in batches; see `pooled_features`.

    The encoder is put in eval mode.
    """
    encoder = encoder.to(device).eval()
    with torch.inference_mode():
        rows = [pooled_features(encoder, *to_tensors(batch, device), blocks) for batch in crops]
    return torch.cat(rows).float().cpu().numpy()
