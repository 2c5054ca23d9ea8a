"""Figures of pretraining: training curves, reconstructions, attention and feature maps."""

from collections.abc import Sequence

import numpy as np

from ssl_pipeline.report.data.report_data import Arrays, TrainingRun
from ssl_pipeline.report.render.figures import Picture, log_panels
from ssl_pipeline.report.render.images import (
    display_window,
    encode_picture,
    fill_missing,
    join_images,
    orient_for_display,
    resize_image,
    to_grey,
)
from ssl_pipeline.store.catalog import Catalog

CROP_PIXELS, MAP_PIXELS = 90, 260  # pixels of the longest side
MAX_ATTENTION = 3.0  # times the mean, which is shown as white


def training_curves(run: TrainingRun | None) -> list[Picture]:
    """Curves of the losses and rates of a run; none where there is no run."""
    return log_panels(run.metrics) if run else []


def snapshot_strips(run: TrainingRun | None) -> list[Picture]:
    """Masked input, reconstruction and attention of each crop, snapshot by snapshot."""
    found = run.images if run else ()
    shown: list[Picture] = []
    for index in range(len(found[-1][1]["input"]) if found else 0):
        shown.append(_strip(found, index, ("input", "masked"), "reconstruction"))
        if "attention" in found[-1][1]:
            shown.append(_strip(found, index, ("input",), "attention"))
    return shown


def _strip(
    snapshots: Sequence[tuple[int, Arrays]], index: int, fixed: tuple[str, ...], repeated: str
) -> Picture:
    """Planes of one crop: those of `fixed`, and `repeated` for every snapshot that has it."""
    last = snapshots[-1][1]
    limits = display_window(last["input"][index])
    planes = [(last[kind][index], limits, kind) for kind in fixed]
    of = (0.0, MAX_ATTENTION) if repeated == "attention" else limits
    planes += [
        (has[repeated][index], of, f"{repeated} at step {step}")
        for step, has in snapshots
        if repeated in has
    ]
    scale = CROP_PIXELS / max(planes[0][0].shape)
    images = [
        resize_image(to_grey(orient_for_display(plane), low, high), (1.0, 1.0), scale, smooth=False)
        for plane, (low, high), _ in planes
    ]
    alt = f"Crop {index + 1}: {', '.join(what for *_, what in planes)}."
    return encode_picture(join_images(images), alt, is_photo=False)


def feature_maps(arrays: Arrays, catalog: Catalog | None) -> list[Picture]:
    """Slices, each beside the first three principal components of its tokens as colours."""
    if "slice" not in arrays or "pca" not in arrays:
        return []
    found = []
    for index, (plane, colours) in enumerate(zip(arrays["slice"], arrays["pca"], strict=True)):
        scan = str(arrays["ids"][index]) if "ids" in arrays else ""
        known = {entry.id: entry.spacing_mm for entry in catalog.entries} if catalog else {}
        _, y_mm, x_mm = known.get(scan, (1.0, 1.0, 1.0))
        known_pixels = np.isfinite(plane)  # slices of one file are filled up to one size with nan
        rows, columns = (np.flatnonzero(known_pixels.any(axis=axis)).max() + 1 for axis in (1, 0))
        plane, colours = plane[:rows, :columns], colours[:rows, :columns]
        low, high = display_window(plane)
        scale = MAP_PIXELS / max(plane.shape[0] * y_mm, plane.shape[1] * x_mm)
        images = [
            resize_image(part, (y_mm, x_mm), scale, smooth=False)
            for part in (
                to_grey(orient_for_display(plane), low, high),
                fill_missing(orient_for_display(colours)),
            )
        ]
        alt = f"Slice {scan} beside a map of its features"
        found.append(encode_picture(join_images(images), alt, scan, is_photo=False))
    return found
