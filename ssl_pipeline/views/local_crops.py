"""Local crops: boxes of patches of a view, which the encoder sees as if there were nothing else.

Multi-crop (Caron et al. 2020, arXiv:2006.09882) asks of a small crop what a teacher makes of a
large one. Here a local crop is a box of a view that was read and augmented anyway, so it costs no
reading, and a sparse pass over its patches alone.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_pipeline.types import Triple
from ssl_pipeline.views.config import LocalCrops


def choose_local(
    hidden: Int[Tensor, "views rest"],
    body_share: Float[Tensor, "views tokens"],
    grid: Triple,
    section: LocalCrops,
) -> Int[Tensor, "views locals box"]:
    """The patches of each local crop of each view, on a grid of patches (z, y, x).

    They lie about the first of the `hidden` patches, which are in random order, those inside the
    body before others, and stay inside the view.
    """
    if not section.number:
        return hidden.new_empty(len(hidden), 0, 0)
    inside: Bool[Tensor, "views rest"] = body_share.gather(1, hidden) >= 0.5
    middles = hidden.gather(1, (~inside).byte().argsort(dim=1, stable=True))[:, : section.number]
    box, (_, rows, columns) = section.box(grid), grid
    at = (middles // (rows * columns), middles // columns % rows, middles % columns)
    starts = [
        (place - side // 2).clamp(0, size - side)
        for place, side, size in zip(at, box, grid, strict=True)
    ]
    axes = [torch.arange(side, device=hidden.device) for side in box]
    z, y, x = (
        start[:, :, None] + offset.flatten()
        for start, offset in zip(starts, torch.meshgrid(*axes, indexing="ij"), strict=True)
    )
    return (z * rows + y) * columns + x
