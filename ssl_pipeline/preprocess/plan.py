"""The plan of a study: the spacing that the training scans of each root suggest, and their extent.

The rule is nnU-Net's (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z): the median spacing of
each axis; where one axis is coarse, three times the others' spacing with a third of their voxels,
its 10th percentile, so that slices of few scans are not merged. Roots are planned apart, for short-
axis slices and an isotropic volume share no spacing. A plan is kept when scans are added, so that
no volume is prepared anew, until the study raises `plan.number`.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.records import Record, RecordPart
from ssl_pipeline.types import Shape, Spacing, triple
from ssl_pipeline.volumes.inventory import Scan
from ssl_pipeline.volumes.root_notes import RootNote

PLAN_FILE = "plan.json"
ANISOTROPY = 3.0  # of spacings and of numbers of voxels, above which an axis is coarse
COARSE_PERCENTILE = 10  # of the spacings of a coarse axis
DIGITS = 3  # of mm
MODALITIES = ("CT", "MR")  # that preprocessing knows
STORED_AXES = ("IS", "PA", "LR")  # codes of the ends of z, y and x


class Planning(Section):
    """How settings that are `auto` are planned from the training scans."""

    number: int = Field(
        1, ge=1, description="raise by 1 to plan anew from all scans that have been added since"
    )
    memory_gib: float = Field(
        4.0,
        gt=0,
        description="memory in GiB that the activations of a training step may take, by which"
        " crop_voxels: auto is chosen",
    )


class RootPlan(RecordPart):
    """What the training scans of a root and modality suggest; triples are (z, y, x)."""

    root: str
    modality: str
    scans: int  # for training, when it was planned
    spacing_mm: Spacing
    size_mm: Spacing  # median extent of a scan

    def shape(self, spacing_mm: Spacing) -> Shape:
        """Voxels of the median scan at a spacing."""
        sides = zip(self.size_mm, spacing_mm, strict=True)
        return triple(max(1, round(size / step)) for size, step in sides)

    @property
    def note(self) -> RootNote:
        """The plan as a sentence."""
        spacing = " x ".join(f"{side:g}" for side in self.spacing_mm)
        scans = format_count(self.scans, "training scan")
        return RootNote(
            self.root, f"{scans} of {self.modality} suggest a spacing of {spacing} mm (z, y, x)"
        )


class Plan(Record):
    """What the training scans of all roots suggest; roots with most of them first."""

    format: Literal[1] = 1
    number: int
    roots: tuple[RootPlan, ...]

    @property
    def notes(self) -> list[RootNote]:
        """The plan of every root as a sentence."""
        return [each.note for each in self.roots]


def build_plan(scans: Sequence[Scan], number: int, previous: Plan | None = None) -> Plan:
    """Plan the roots of usable scans, but those that an earlier plan of this number has."""
    kept = previous.roots if previous and previous.number == number else ()
    known = {(each.root, each.modality): each for each in kept}
    found = [known.get((each.root, each.modality), each) for each in _plan_roots(scans)]
    ranked = sorted(found, key=lambda each: (-each.scans, each.root, each.modality))
    return Plan(number=number, roots=tuple(ranked))


def suggested_spacing(spacings: NDArray[np.float64], shapes: NDArray[np.int64]) -> Spacing:
    """The spacing (z, y, x) to store scans at, from theirs in mm and their voxels, (n, 3) each."""
    target, shape = np.median(spacings, axis=0), np.median(shapes, axis=0)
    coarse = int(target.argmax())
    others = float(np.delete(target, coarse).max())
    has_coarse_axis = target[coarse] > ANISOTROPY * others
    if has_coarse_axis and shape[coarse] * ANISOTROPY < np.delete(shape, coarse).min():
        target[coarse] = max(others, np.percentile(spacings[:, coarse], COARSE_PERCENTILE))
    return triple(round(float(side), DIGITS) for side in target)


def _plan_roots(scans: Sequence[Scan]) -> Iterator[RootPlan]:
    trained = [s for s in scans if s.split in ("train", "") and s.modality in MODALITIES]

    def group(scan: Scan) -> tuple[str, str]:
        return scan.root, scan.modality

    for (root, modality), each in groupby(sorted(trained, key=group), key=group):
        grids = [stored_order(scan) for scan in each]
        spacings, shapes = np.array([s for s, _ in grids]), np.array([n for _, n in grids])
        extent = np.median(spacings * shapes, axis=0)
        yield RootPlan(
            root=root,
            modality=modality,
            scans=len(grids),
            spacing_mm=suggested_spacing(spacings, shapes),
            size_mm=triple(round(float(side), DIGITS) for side in extent),
        )


def stored_order(scan: Scan) -> tuple[Spacing, Shape]:
    """Spacing and shape of a scan in the order of stored axes, (z, y, x)."""
    axes = [
        next(i for i, end in enumerate(scan.orientation) if end in ends) for ends in STORED_AXES
    ]
    return triple(scan.spacing_mm[i] for i in axes), triple(scan.shape[i] for i in axes)
