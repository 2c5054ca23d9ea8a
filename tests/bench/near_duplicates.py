"""Near-duplicates: how many planted copies are found, and how many scans are wrongly taken for one.

Of each folder of scans every second one chose the threshold (`--choose` prints what each would
give), and the others are reported on. A copy is changed as copies in archives are; the hardest has
all changes at once. Copies are planted into the whole folder, so that all scans that are no copies
compete with them.
"""

import math
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ssl_pipeline.volumes import geometry, readers
from ssl_pipeline.volumes.config import Splits
from ssl_pipeline.volumes.duplicates.keypoints import Keypoints, detect_keypoints
from ssl_pipeline.volumes.duplicates.near_duplicates import (
    Similarity,
    candidate_pairs,
    find_near_duplicates,
    similarity,
)
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.volume import Volume
from tests.bench.table import BenchmarkRow, write_table

FOLDERS: dict[str, float | None] = {"hippocampus": None, "openkbp": 0.0}  # and what is missing
COPIED_SCANS = 20  # scans of each folder that are copied
Change = tuple[str, NDArray[Any], tuple[float, float, float]]


class PlantedCopy(NamedTuple):
    """A planted copy: how it was changed, and the number of the scan that it shows."""

    kind: str
    scan_index: int
    points: Keypoints


def rows() -> Iterator[BenchmarkRow]:
    """Recall and precision at the default threshold; none without the data."""
    least = Splits().duplicate_threshold or 1.0
    for name, scans, planted in _cases(1):
        found = set(find_near_duplicates([*scans, *(copy.points for copy in planted)], least))
        hit = [(copy.scan_index, at) in found for at, copy in enumerate(planted, start=len(scans))]
        missed = Counter(copy.kind for copy, there in zip(planted, hit, strict=True) if not there)
        listed = ", ".join(f"{kind} {count}" for kind, count in missed.items()) or "none"
        measure = f"near-duplicates among {len(scans)} of {name}"
        yield BenchmarkRow(
            f"{measure}, recall", f"{sum(hit)} of {len(hit)}", f"missed: {listed}", np.mean(hit)
        )
        shows = [*range(len(scans)), *(copy.scan_index for copy in planted)]
        right = sum(shows[low] == shows[high] for low, high in found)
        pairs = math.comb(len(shows), 2) - sum(math.comb(n, 2) for n in Counter(shows).values())
        yield BenchmarkRow(
            f"{measure}, precision",
            f"{right} of {len(found)} pairs",
            f"{pairs:,} pairs could be mistaken",
            right / len(found),
        )


def print_candidate_thresholds() -> None:
    """Print the likeness of copies and of others, of the scans that may choose the threshold."""
    for name, scans, planted in _cases(0):
        others = sorted(similarity(scans[a], scans[b]) for a, b in candidate_pairs(scans))
        print(f"{name}, {len(scans)} scans: others at most", *map(_formatted, others[-6:]))
        for kind in dict.fromkeys(copy.kind for copy in planted):
            own = [copy for copy in planted if copy.kind == kind]
            scores = sorted(similarity(scans[copy.scan_index], copy.points) for copy in own)
            print(f"  {kind}: at least", *map(_formatted, scores[:6]))


def _formatted(similarity: Similarity) -> str:
    return f"{similarity.score:.2f}"


def _cases(first: int) -> Iterator[tuple[str, list[Keypoints], list[PlantedCopy]]]:
    """Each folder's every second scan from `first` on, and copies of some of them."""
    top = Path(os.environ.get("SSL_PIPELINE_DATA", "."))
    for name, missing in FOLDERS.items():
        paths = sorted((top / name / "images").glob("*.nii.gz"))[first::2]
        scans = [geometry.to_canonical(readers.read_volume(Source(path))) for path in paths]
        if scans:
            yield (
                name,
                [detect_keypoints(each, missing) for each in scans],
                _planted(scans, missing),
            )


def _planted(scans: list[Volume], missing: float | None) -> list[PlantedCopy]:
    """Copies in which what is missing stays so."""
    rng = np.random.default_rng(0)
    made = []
    for number, scan in enumerate(scans[:COPIED_SCANS]):
        for kind, data, spacing in _changes(scan, missing, rng):
            marked = data if missing is None else np.where(np.isnan(data), missing, data)
            copy = Volume(np.asarray(marked, np.float32), np.diag([*spacing, 1.0]))
            made.append(PlantedCopy(kind, number, detect_keypoints(copy, missing)))
    return made


def _changes(scan: Volume, missing: float | None, rng: np.random.Generator) -> Iterator[Change]:
    data, spacing = scan.data.astype(np.float32), geometry.spacing_mm(scan.affine)
    thin = tuple(mm / 0.8 for mm in spacing)
    if missing is not None:
        data[data == missing] = np.nan
    low, high = np.nanpercentile(data[data > np.nanmin(data)], (5, 95))
    noise = 0.05 * float(high - low)
    smaller = tuple(slice(round(0.3 * n), round(0.93 * n)) for n in data.shape)
    yield "cropped to a quarter", data[smaller], spacing
    yield "mirrored", data[::-1], spacing
    yield "noisy", data + rng.normal(0, 2 * noise, data.shape), spacing
    yield "resampled", ndimage.zoom(data, 0.8, order=1, grid_mode=True, mode="nearest"), _of(thin)
    yield "thick slices", _pairs_of_slices(data), (spacing[0], spacing[1], 2 * spacing[2])
    yield "windowed to 8 bits", np.round(255 * np.clip((data - low) / (high - low), 0, 1)), spacing
    most = tuple(slice(round(0.1 * n), round(0.9 * n)) for n in data.shape)
    window = np.clip(data, low, high)[most][::-1] + rng.normal(0, noise, data[most].shape)
    yield (
        "all at once",
        ndimage.zoom(window, 0.8, order=1, grid_mode=True, mode="nearest"),
        _of(thin),
    )


def _of(spacing: tuple[float, ...]) -> tuple[float, float, float]:
    x, y, z = spacing
    return x, y, z


def _pairs_of_slices(data: NDArray[Any]) -> NDArray[Any]:
    even = data[:, :, : data.shape[2] // 2 * 2]
    return even.reshape(*data.shape[:2], -1, 2).mean(-1)


if __name__ == "__main__":
    print_candidate_thresholds() if "--choose" in sys.argv else write_table(
        [*rows()], Path("build/bench/copies.json")
    )
