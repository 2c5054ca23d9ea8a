"""Frozen features: the mean over an encoder's tokens that are at least half inside of the scan."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ssl_pipeline.evaluation.crops import Crops
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.views.config import Triple
from ssl_pipeline.views.tokens import patch_share, pool


def pooled(
    encoder: Encoder,
    images: Float[Tensor, "batch z y x"],
    valid: Float[Tensor, "batch z y x"],
    spacing_mm: Float[Tensor, "batch 3"],
) -> Float[Tensor, "batch dim"]:
    """Dense pass and mean over the tokens that are inside."""
    return pool(encoder(images[:, None], spacing_mm), inside(valid, encoder.patch))


def inside(valid: Float[Tensor, "batch z y x"], patch: Triple) -> Float[Tensor, "batch tokens"]:
    """1 for tokens whose voxels are at least half valid, else 0."""
    return (patch_share(valid, patch) >= 0.5).to(valid.dtype)


def tensors(crops: Crops, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Images, valid voxels and spacing of a batch on a device."""
    parts = (crops.images, crops.valid, crops.spacing_mm)
    images, valid, spacing = (torch.from_numpy(part).to(device) for part in parts)
    return images, valid, spacing


def features(encoder: Encoder, crops: Iterable[Crops], device: str) -> NDArray[np.float32]:
    """Features (n, dim) of crops that come in batches; the encoder is put in eval mode."""
    encoder = encoder.to(device).eval()
    with torch.inference_mode():
        rows = [pooled(encoder, *tensors(batch, device)).float().cpu().numpy() for batch in crops]
    return np.concatenate(rows)
