"""PCA of feature maps at the end of pretraining, as images for the report.

Arrays of `feature_pca.npz`: `slice` (k, y, x) in model input with `pca` (k, y, x, 3), the tokens'
first three principal components as colours, nan outside the body, and the volumes' `ids` (k,).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.preprocess.prepare import FOREGROUND, model_input
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training.snapshots import write_arrays
from ssl_pipeline.views.patches import patch_share
from ssl_pipeline.views.sampler import Sampler

N_SLICES = 3
MAX_SLAB_VOXELS = 160  # voxels along y and x that go through the encoder for a feature map


@torch.inference_mode()
def write_feature_pca(encoder: Encoder, sampler: Sampler, path: Path) -> Path:
    """Write the feature PCA of a finished run's encoder; returns the path."""
    write_arrays(path, _feature_maps(encoder.eval(), sampler))
    return path


def _feature_maps(
    encoder: Encoder, sampler: Sampler
) -> dict[str, NDArray[np.float32] | NDArray[np.str_]]:
    """A slab through the middle of some volumes, its tokens coloured by principal components."""
    entries = sampler.entries[:: max(1, len(sampler.entries) // N_SLICES)][:N_SLICES]
    slabs = [_encode_slab(encoder, sampler.reader, entry) for entry in entries]
    tokens = np.concatenate([found[inside] for _, found, inside in slabs])
    mean = tokens.mean(axis=0)
    axes = np.linalg.svd(tokens - mean, full_matrices=False)[2][:3]
    low, high = np.percentile((tokens - mean) @ axes.T, (2, 98), axis=0)
    size = sampler.patch
    slices, maps = [], []
    for image, found, inside in slabs:
        colours = np.clip(((found - mean) @ axes.T - low) / (high - low + 1e-6), 0, 1)
        colours = np.where(inside[..., None], colours, np.nan)
        slices.append(image)
        maps.append(colours.repeat(size[1], axis=0).repeat(size[2], axis=1))
    shape = np.max([image.shape for image in slices], axis=0)
    return {
        "slice": np.stack([_pad_to_shape(image, shape) for image in slices]).astype(np.float32),
        "pca": np.stack([_pad_to_shape(found, shape) for found in maps]).astype(np.float32),
        "ids": np.array([entry.id for entry in entries]),
    }


def _pad_to_shape(
    image: NDArray[np.floating[Any]], shape: NDArray[np.int64]
) -> NDArray[np.floating[Any]]:
    """NaN beyond the end, up to (y, x) of `shape`."""
    room = [(0, int(s) - n) for s, n in zip(shape, image.shape[:2], strict=True)]
    return np.pad(image, [*room, *[(0, 0)] * (image.ndim - 2)], constant_values=np.nan)


def _encode_slab(
    encoder: Encoder, reader: CropReader, entry: Entry
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Middle slice (y, x), tokens (rows, columns, dim) of the patches in it, which are inside."""
    device = next(encoder.parameters()).device
    pz, py, px = encoder.patch
    y, x = (
        min(-(-n // p) * p, MAX_SLAB_VOXELS // p * p)
        for n, p in zip(entry.shape[1:], (py, px), strict=True)
    )
    start = (entry.shape[0] // 2 - pz // 2, (entry.shape[1] - y) // 2, (entry.shape[2] - x) // 2)
    block = reader.read_crop(entry.id, start, (pz, y, x))
    image = model_input(block, entry.meta)
    spacing = torch.tensor([entry.meta.spacing_mm], dtype=torch.float32, device=device)
    tokens = (
        encoder(torch.from_numpy(image)[None, None].to(device), spacing)[0].float().cpu().numpy()
    )
    body = torch.from_numpy((block[1] & FOREGROUND > 0).astype(np.float32))[None]
    inside = patch_share(body, encoder.patch)[0].numpy() >= 0.5
    rows, columns = y // py, x // px
    return image[pz // 2], tokens.reshape(rows, columns, -1), inside.reshape(rows, columns)
