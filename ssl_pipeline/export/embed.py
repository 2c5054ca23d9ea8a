"""Features of a scan that the encoder never saw, prepared as pretraining's volumes were."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.data.crops import padded_window
from ssl_pipeline.export.scan_contract import ScanContract
from ssl_pipeline.export.stored_values import ScanHints, choose_stored_values
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.preprocess.prepare import FOREGROUND, PreparedVolume, model_input, prepare_volume
from ssl_pipeline.types import Triple
from ssl_pipeline.views.patches import patch_centres_mm, patch_share
from ssl_pipeline.volumes.config import Modality
from ssl_pipeline.volumes.quality_control import size_fault
from ssl_pipeline.volumes.readers import Source, find_sources, read_grid, read_volume

MAX_BATCH_SIZE = 32  # crops that go through the encoder at once
# Their voxels: one crop of 128^3 or many small ones, 0.3 GB for each map of 32 channels in fp32.
MAX_BATCH_VOXELS = 128**3


@dataclass(frozen=True)
class Features:
    """Features of a scan.

    `vector` (dim,) is the mean over the tokens inside the body; `tokens` (n, dim) are those tokens
    and `centres_mm` (n, 3) their middles in the scan's world, RAS, in mm.
    """

    vector: NDArray[np.float32]
    tokens: NDArray[np.float32]
    centres_mm: NDArray[np.float32]


def prepare_file(contract: ScanContract, scan: Path, hints: ScanHints) -> PreparedVolume:
    """Read and prepare one file, or the folder of one series."""
    sources = find_sources(scan)
    if len(sources) != 1:
        raise UserError(f"{scan} holds {len(sources)} scans: give one file, or one series' folder.")
    return prepare_source(contract, sources[0], hints)


def prepare_source(contract: ScanContract, source: Source, hints: ScanHints) -> PreparedVolume:
    """Read, check and prepare a scan as the inventory and preprocessing of pretraining did.

    The file's own modality beats that of the hints. Raises UserError for a scan that cannot be
    read or used.
    """
    name = source.path.name
    if fault := size_fault(read_grid(source), contract.quality):
        raise UserError(f"{name}: {fault}.")
    volume = read_volume(source)
    preprocess = contract.preprocess
    if hints.root:
        preprocess = preprocess.for_roots([hints.root])
    modality = _modality(name, volume.modality or hints.modality)
    try:
        values = choose_stored_values(
            contract.stored_values, volume, modality, hints, contract.quality
        )
        return prepare_volume(
            volume,
            modality,
            preprocess,
            intensity_offset=values.intensity_offset,
            missing_value=values.missing_value,
        )
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _modality(name: str, known: str | None) -> Modality:
    if known is None:
        raise UserError(f"{name} does not say its modality: give it, as CT or MR.")
    for modality in get_args(Modality):
        if known == modality:
            return cast(Modality, modality)
    raise UserError(f"{name} is taken for {known}, and encoders are of CT and MR.")


@torch.inference_mode()
def embed_prepared(encoder: Encoder, crop_voxels: Triple, prepared: PreparedVolume) -> Features:
    """Tile the body with crops, side by side, and keep the tokens that are mostly inside it."""
    size, patch, device = crop_voxels, encoder.patch, next(encoder.parameters()).device
    spacing = torch.tensor([prepared.meta.spacing_mm])
    inside = patch_centres_mm(size, patch, spacing)[
        0
    ].numpy()  # (tokens, 3), mm from the crop's middle
    tokens, places = [], []
    for starts, crops in _crop_batches(prepared.data, size):
        images = np.stack([model_input(crop, prepared.meta) for crop in crops])[:, None]
        body = (crops[:, 1] & FOREGROUND > 0).astype(np.float32)
        kept = (patch_share(torch.from_numpy(body), patch) >= 0.5).numpy()
        found = encoder(
            torch.from_numpy(images).to(device), spacing.expand(len(crops), 3).to(device)
        )
        tokens.append(found.float().cpu().numpy()[kept])
        middle = (np.array(starts) + (np.array(size) - 1) / 2) * spacing.numpy()
        places.append((middle[:, None] + inside[None])[kept])
    seen = np.concatenate(tokens)
    if not len(seen):
        raise UserError("No part of this scan lies inside a body: is the modality right?")
    return Features(
        seen.mean(axis=0), seen, _to_world_mm(np.concatenate(places).astype(np.float32), prepared)
    )


def _crop_batches(
    data: NDArray[np.int16], crop_voxels: Triple
) -> Iterator[tuple[list[Triple], NDArray[np.int16]]]:
    """Crops side by side over a stored volume, zeros beyond its end, some at a time."""
    size = crops_at_once(crop_voxels)
    z_starts, y_starts, x_starts = map(range, (0, 0, 0), data.shape[1:], crop_voxels)
    starts = list(product(z_starts, y_starts, x_starts))
    for first in range(0, len(starts), size):
        part = starts[first : first + size]
        yield part, np.stack([padded_window(data, start, crop_voxels, 0) for start in part])


def crops_at_once(crop_voxels: Triple) -> int:
    """Number of crops of this size (z, y, x) that one pass of the encoder takes, at least one."""
    return min(MAX_BATCH_SIZE, max(1, MAX_BATCH_VOXELS // math.prod(crop_voxels)))


def _to_world_mm(
    positions_mm: NDArray[np.float32], prepared: PreparedVolume
) -> NDArray[np.float32]:
    """Positions along the stored grid's axes (z, y, x), in mm from its first voxel, as RAS."""
    affine = np.array(prepared.meta.affine)
    voxels = (positions_mm / np.array(prepared.meta.spacing_mm))[:, ::-1]
    world: NDArray[np.float32] = (voxels @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)
    return world
