"""Pictures of a run while it goes on: what it rebuilds, and where it looks, at a few moments.

Small and few: middle slices of some crops of the recorder's bank, at the end of each quarter of the
run, in a file of some kilobytes each. Arrays, (n, y, x) in model input: `input`, `masked` (nan
where hidden), `rebuilt` (hidden patches as the decoder says them) where there is a decoder, and
where the backbone has attention, `attention`, how much the middle token attends to each voxel's
patch in the last block, over the mean.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_pipeline.atomic import replacing
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.views.cut import Batch
from ssl_pipeline.views.tokens import grid_of, patchify, unpatchify

FOLDER, CROPS, PARTS = "moments", 4, 4
Arrays = dict[str, NDArray[np.float32]]


def due(step: int, every: int, steps: int) -> bool:
    """Whether a record at `step`, of those taken every so many steps, ends a quarter of the run."""
    return step == steps or PARTS * step // steps > PARTS * max(0, step - every) // steps


@torch.no_grad()
def picture(objective: Objective, batch: Batch, autocast: Callable[[], torch.autocast]) -> Arrays:
    """The arrays for the first crops of a batch, which are seen as they are, unchanged."""
    z, y, x = batch.clean.shape[2:]
    patch = objective.encoder.patch
    with autocast():
        rebuilt = objective.rebuilt(batch, batch.clean)
        attention = objective.encoder.attention(batch.clean[:CROPS], batch.spacing_mm[:CROPS])
    patches = patchify(batch.clean, patch)
    masked = patches.scatter(1, batch.hidden[..., None].expand(-1, -1, patches.shape[2]), torch.nan)
    volumes = {"input": batch.clean, "masked": unpatchify(masked, (z, y, x), patch)}
    if rebuilt is not None:
        volumes["rebuilt"] = rebuilt
    if attention is not None:
        middle = _middle(grid_of((z, y, x), patch))
        shares = attention[:, :, middle].float().mean(dim=1) * attention.shape[-1]
        voxels = shares[..., None].expand(-1, -1, patches.shape[2])
        volumes["attention"] = unpatchify(voxels, (z, y, x), patch)
    return {name: _slices(volume) for name, volume in volumes.items()}


def save(folder: Path, step: int, arrays: Arrays) -> None:
    """Keep a moment in a run's folder."""
    path = folder / FOLDER / f"step-{step:08d}.npz"
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read(folder: Path) -> list[tuple[int, Arrays]]:
    """The moments of a run's folder, by step."""
    found = []
    for path in sorted((folder / FOLDER).glob("step-*.npz")):
        with np.load(path) as stored:
            found.append((int(path.stem.split("-")[1]), {n: stored[n] for n in stored.files}))
    return found


def _middle(grid: tuple[int, int, int]) -> int:
    """The number of the token in the middle of a crop."""
    z, y, x = (n // 2 for n in grid)
    return (z * grid[1] + y) * grid[2] + x


def _slices(volume: Tensor) -> NDArray[np.float32]:
    shown: NDArray[np.float32] = (
        volume[:CROPS, 0, volume.shape[2] // 2].float().cpu().numpy().astype(np.float32)
    )
    return shown
