"""Partners: the scan that the second view of a sample is cropped from, and the place in it.

Scans of one visit show one body in other physics: a shortcut by contrast or scanner cannot make
their views agree. Where they share a frame, both views lie about the same millimetres.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.types import Affine

# By which the axes of two grids may differ, so that a crop of 32 voxels is off by 1 at its corners.
MAX_TURN_DEG = 5.0


def scans_by_visit(entries: Sequence[Entry]) -> dict[str, list[int]]:
    """The volumes of each visit, by their index."""
    found: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        if entry.visit:
            found.setdefault(entry.visit, []).append(index)
    return found


def check_partners(entries: Sequence[Entry], partner: str) -> None:
    """Raise UserError where second views are to come from partners, and no volume has one."""
    has_partners = any(len(each) > 1 for each in scans_by_visit(entries).values())
    if partner == "visit" and not has_partners:
        raise UserError(
            "views.partner is visit, and no visit has two scans to train on: set it to scan, or say"
            " by `visit` of the roots which scans belong together."
        )


def same_place(
    entry: Entry, centre: NDArray[np.float64], partner: Entry
) -> NDArray[np.float64] | None:
    """The voxel (z, y, x) of a partner that lies where the voxel `centre` of a volume lies.

    None where the two share no frame, their grids are turned against each other, or the place is
    outside of the partner.
    """
    if not entry.frame or entry.frame != partner.frame:
        return None
    between = np.linalg.inv(_to_frame(partner)) @ _to_frame(entry)  # voxels (x, y, z) of both
    place: NDArray[np.float64] = (between @ [*centre[::-1], 1.0])[2::-1]
    is_inside = ((place >= 0) & (place <= np.array(partner.shape) - 1)).all()
    return place if is_inside and _turn_deg(entry, partner) <= MAX_TURN_DEG else None


def _to_frame(entry: Entry) -> Affine:
    """From voxels (x, y, z) of the stored grid to mm of the frame."""
    affine = np.array(entry.meta.affine)
    return np.array(entry.to_frame) @ affine if entry.to_frame else affine


def _turn_deg(entry: Entry, other: Entry) -> float:
    """The largest angle between an axis of one grid and the same axis of the other, in degrees."""
    axes = (_to_frame(each)[:3, :3] for each in (entry, other))
    one, two = (part / np.linalg.norm(part, axis=0) for part in axes)
    return float(np.degrees(np.arccos(np.clip((one * two).sum(0), -1, 1))).max())
