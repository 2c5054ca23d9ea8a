"""Near-duplicates: how many planted copies are found, and how many scans are wrongly taken for one.

Of each folder of scans every second one chose the threshold (`--choose` prints what each would
give), and the others are reported on. A copy is changed as copies in archives are; the hardest has
all changes at once. Copies are planted into the whole folder, so that all scans that are no copies
compete with them.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from threadpoolctl import threadpool_limits

from ssl_pipeline.volumes import geometry, readers
from ssl_pipeline.volumes.copies import likeness, near_duplicates, suspects
from ssl_pipeline.volumes.dataset import Splits
from ssl_pipeline.volumes.keypoints import Keypoints, keypoints
from ssl_pipeline.volumes.volume import Volume
from tests.bench.table import Row

FOLDERS = {"hippocampus": 0.0, "openkbp": -1024.0}  # what is added to stored values, to give HU
PLANTED = 20  # scans of each folder that are copied
Change = tuple[str, NDArray[Any], tuple[float, float, float]]


def rows() -> Iterator[Row]:
    """Recall of each change, and precision, at the default threshold; none without the data."""
    share = Splits().copies_share or 1.0
    for name, scans in _folders():
        of, planted = _planted(scans[1::2])
        marks = [
            *(keypoints(each, None) for each in scans[1::2]),
            *(each for _, _, each in planted),
        ]
        with threadpool_limits(1):
            found = near_duplicates(marks, share)
        true = {(original, of + number) for number, (_, original, _) in enumerate(planted)}
        kinds = sorted({kind for kind, _, _ in planted})
        hit = dict.fromkeys(kinds, 0)
        for number, (kind, original, _) in enumerate(planted):
            hit[kind] += (original, of + number) in found
        told = ", ".join(f"{kind} {hit[kind]}/{len(planted) // len(kinds)}" for kind in kinds)
        among = [pair for pair in found if pair[1] < of]
        yield Row(f"near-duplicates in {name}, {of} scans", told, "found of planted")
        yield Row(
            f"pairs of {name} that are no copies",
            f"{len(among)} of {of * (of - 1) // 2} taken for copies; {len(true)} planted",
            "",
        )


def choose() -> None:
    """Print the likeness of copies and of others, of the scans that may choose the threshold."""
    for name, scans in _folders():
        _, planted = _planted(scans[::2])
        marks = [keypoints(each, None) for each in scans[::2]]
        others = sorted(likeness(marks[a], marks[b]) for a, b in suspects(marks))[-8:]
        print(name, len(marks), "scans; others:", [_told(each) for each in others])
        for kind in sorted({kind for kind, _, _ in planted}):
            alike = sorted(likeness(marks[at], copy) for each, at, copy in planted if each == kind)
            print(f"  {kind}:", [_told(each) for each in alike[:5]])


def _told(alike: Any) -> str:
    return f"{alike.share:.2f} ({alike.matches})"


def _folders() -> Iterator[tuple[str, list[Volume]]]:
    top = Path(os.environ.get("SSL_PIPELINE_DATA", "."))
    for name in FOLDERS:
        paths = sorted((top / name / "images").glob("*"))
        if paths:
            found = [readers.read(each) for path in paths for each in readers.find(path)]
            yield name, [geometry.canonical(each) for each in found]


def _planted(scans: list[Volume]) -> tuple[int, list[tuple[str, int, Keypoints]]]:
    """The number of scans, and of each copy its kind, its original's number and its keypoints."""
    rng = np.random.default_rng(0)
    made = []
    for number, scan in enumerate(scans[:PLANTED]):
        for kind, data, spacing in _changes(scan, rng):
            copy = Volume(np.asarray(data, np.float32), np.diag([*spacing, 1.0]))
            made.append((kind, number, keypoints(copy, None)))
    return len(scans), made


def _changes(scan: Volume, rng: np.random.Generator) -> Iterator[Change]:
    data, spacing = scan.data.astype(np.float32), geometry.spacing_mm(scan.affine)
    thin = tuple(mm / 0.8 for mm in spacing)
    low, high = np.percentile(data[data > data.min()], (5, 95))
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
    choose() if "--choose" in sys.argv else print(*rows(), sep="\n")
