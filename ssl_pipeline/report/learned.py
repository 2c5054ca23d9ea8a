"""What pretraining did: its curves, what it rebuilds, and what its tokens tell apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.atomic import read_json
from ssl_pipeline.report.figures import Picture, curves
from ssl_pipeline.report.images import grey, picture, row, shown, sized, upright, window
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training import moments
from ssl_pipeline.training.metrics import read as read_metrics

CROP, MAP = 90, 260  # pixels of the longest side
MOST_ATTENTION = 3.0  # times the mean, which is shown as white
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


def strips(pretrain: Path) -> list[Picture]:
    """Of each crop what was hidden and rebuilt, and where the encoder looked, moment by moment."""
    record = pretrain / "run.json"
    found = moments.read(pretrain / read_json(record)["folder"]) if record.exists() else []
    shown: list[Picture] = []
    for index in range(len(found[-1][1]["input"]) if found else 0):
        shown.append(_strip(found, index, ("input", "masked"), "rebuilt"))
        if "attention" in found[-1][1]:
            shown.append(_strip(found, index, ("input",), "attention"))
    return shown


def _strip(
    found: Sequence[tuple[int, Arrays]], index: int, first: tuple[str, ...], then: str
) -> Picture:
    """Planes of one crop: those of `first`, and that of `then` for every moment that has it."""
    last = found[-1][1]
    limits = window(last["input"][index])
    planes = [(last[kind][index], limits, kind) for kind in first]
    of = (0.0, MOST_ATTENTION) if then == "attention" else limits
    planes += [
        (has[then][index], of, f"{then} at step {step}") for step, has in found if then in has
    ]
    scale = CROP / max(planes[0][0].shape)
    images = [
        sized(grey(upright(plane), low, high), (1.0, 1.0), scale, smooth=False)
        for plane, (low, high), _ in planes
    ]
    alt = f"Crop {index + 1}: {', '.join(what for *_, what in planes)}."
    return picture(row(images), alt, photo=False)


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
