"""How much of what experts drew lies in the stored crop and in the body: Otsu's threshold and ours.

`SSL_PIPELINE_DATA=... python -m tests.bench.foreground`: every labelled scan of the public data,
some minutes. Otsu's is the largest part above the threshold (in CT, above -500 HU), its holes
filled slice by slice; all of the scan where that is less than 2 % or more than 95 % of it.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.foreground import bounding_box, ct_body, mr_body
from ssl_pipeline.preprocess.intensity import ct_to_int16, mr_to_int16
from ssl_pipeline.volumes.geometry import to_canonical
from ssl_pipeline.volumes.readers import Source, read_volume
from ssl_pipeline.volumes.value_statistics import valid_mask

SETTINGS = Preprocess()
MARGIN = (SETTINGS.margin_voxels,) * 3
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelledSet:
    """Scans of one modality, each with a label on its own grid."""

    name: str
    modality: str
    pairs: list[tuple[Path, Path]]
    intensity_offset: float = 0.0
    missing_value: float | None = None


def labelled_sets(folder: Path) -> Iterator[LabelledSet]:
    """The labelled sets of the public data."""

    def pairs(name: str) -> list[tuple[Path, Path]]:
        images = sorted((folder / name / "images").glob("*.nii.gz"))
        labels = [folder / name / "labels" / image.name for image in images]
        return [pair for pair in zip(images, labels, strict=True) if pair[1].exists()]

    yield LabelledSet("hippocampus, MR crops in the head", "MR", pairs("hippocampus"))
    yield LabelledSet("openkbp, CT of head and neck", "CT", pairs("openkbp"), -1024, 0)
    brains = sorted((folder / "multicontrast" / "mni").glob("*/[FT]*.nii.gz"))
    lesions = [(image, image.parent / "lesions.nii.gz") for image in brains]
    yield LabelledSet("multicontrast, MR of stripped brains", "MR", lesions)


def otsu_body(image: NDArray[np.int16], valid: Mask, threshold: float | None) -> Mask:
    """The largest part above a threshold, or above Otsu's, with the holes of slices filled."""
    values = image[valid]
    if threshold is None:
        low, high = np.percentile(values, SETTINGS.mr.percentiles)
        counts, edges = np.histogram(np.clip(values, low, high), 1000)
        centres, below = (edges[1:] + edges[:-1]) / 2, np.cumsum(counts)
        moment, above = np.cumsum(counts * centres), len(values) - below
        difference = moment[-1] * below - moment * len(values)
        threshold = float(centres[np.argmax(difference**2 / np.maximum(below * above, 1))])
    parts, _ = ndimage.label((image > threshold) & valid)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = parts == sizes.argmax()
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in largest]) & valid
    return body if 0.02 <= body.sum() / valid.sum() <= 0.95 else valid


def measure(each: LabelledSet, pair: tuple[Path, Path]) -> list[float]:
    """Of Otsu and of ours: labelled voxels in the crop, in the body, and seconds."""
    raw, label = (to_canonical(read_volume(Source(path))).data.transpose(2, 1, 0) for path in pair)
    valid = valid_mask(raw, each.missing_value)
    ways: tuple[Callable[[], Mask], Callable[[], Mask]]
    if each.modality == "CT":
        image = ct_to_int16(raw, valid, each.intensity_offset, SETTINGS.ct.clip_hu)
        limit = SETTINGS.ct.foreground_hu
        ways = (lambda: otsu_body(image, valid, limit), lambda: ct_body(image, valid, limit))
    else:
        image, scale, offset = mr_to_int16(raw, valid, 0.0)
        ways = (
            lambda: otsu_body(image, valid, None),
            lambda: mr_body(image, valid, -offset / scale),
        )
    drawn = (label > 0) & valid
    found: list[float] = []
    for way in ways:
        began = time.perf_counter()
        body = way()
        seconds = time.perf_counter() - began
        in_crop = np.count_nonzero(drawn[bounding_box(body, MARGIN)])
        in_body = np.count_nonzero(drawn & body)
        found += [in_crop / drawn.sum(), in_body / drawn.sum(), seconds]
    return found


def main() -> None:
    columns = ("set", "scans", "way", "in crop, least", "mean", "in body, least", "mean", "seconds")
    table = Table(*columns, box=None)
    for each in labelled_sets(Path(os.environ["SSL_PIPELINE_DATA"])):
        rows = np.array([measure(each, pair) for pair in each.pairs])
        for way, (crop, body, seconds) in (("Otsu", rows.T[:3]), ("ours", rows.T[3:])):
            numbers = (crop.min(), crop.mean(), body.min(), body.mean())
            shares = (f"{100 * number:.1f} %" for number in numbers)
            table.add_row(each.name, str(len(rows)), way, *shares, f"{np.median(seconds):.3f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
