"""What pretraining did: its curves, what it rebuilds, and what its tokens tell apart."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.atomic import read_json
from ssl_pipeline.report.figures import Picture, curves
from ssl_pipeline.report.images import grey, picture, row, shown, sized, upright, window
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training.metrics import read as read_metrics

MOST_CROPS = 6
CROP, MAP = 150, 260  # pixels of the longest side
Arrays = Mapping[str, NDArray[np.float32]]


def training_curves(pretrain: Path) -> list[Picture]:
    """Curves of the run that `run.json` names; none where there is no run."""
    record = pretrain / "run.json"
    if not record.exists():
        return []
    return curves(read_metrics(pretrain / read_json(record)["folder"] / "metrics.jsonl"))


def read_pictures(pretrain: Path) -> Arrays:
    """The arrays of `pictures.npz`; none where there is no such file."""
    path = pretrain / "pictures.npz"
    if not path.exists():
        return {}
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def triptychs(arrays: Arrays) -> list[Picture]:
    """Crops as they are, as the encoder sees them, and as the decoder rebuilds them."""
    kinds = [kind for kind in ("input", "masked", "rebuilt") if kind in arrays]
    if "input" not in kinds:
        return []
    found = []
    for index, crop in enumerate(arrays["input"][:MOST_CROPS]):
        low, high = window(crop)
        scale = CROP / max(crop.shape)
        images = [
            sized(grey(upright(arrays[kind][index]), low, high), (1.0, 1.0), scale, smooth=False)
            for kind in kinds
        ]
        alt = f"Crop {index + 1}: {', '.join(kinds)}"
        found.append(picture(row(images), alt, photo=False))
    return found


def feature_maps(arrays: Arrays, catalog: Catalog | None) -> list[Picture]:
    """Slices, each beside the first three principal components of its tokens as colours."""
    if "slice" not in arrays or "pca" not in arrays:
        return []
    found = []
    for index, (plane, colours) in enumerate(zip(arrays["slice"], arrays["pca"], strict=True)):
        scan = str(arrays["ids"][index]) if "ids" in arrays else ""
        known = {entry.id: entry.spacing_mm for entry in catalog.entries} if catalog else {}
        x_mm, y_mm, _ = known.get(scan, (1.0, 1.0, 1.0))
        there = np.isfinite(plane)  # slices of one file are filled up to one size with nan
        rows, columns = (np.flatnonzero(there.any(axis=axis)).max() + 1 for axis in (1, 0))
        plane, colours = plane[:rows, :columns], colours[:rows, :columns]
        low, high = window(plane)
        scale = MAP / max(plane.shape[0] * y_mm, plane.shape[1] * x_mm)
        images = [
            sized(part, (y_mm, x_mm), scale, smooth=False)
            for part in (grey(upright(plane), low, high), shown(upright(colours)))
        ]
        alt = f"Slice {scan} beside a map of its features"
        found.append(picture(row(images), alt, scan, photo=False))
    return found
