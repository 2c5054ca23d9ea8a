"""The picture of the README: one study, from a raw slice to the summary of its report.

    python docs/images/overview.py build/demo docs/images/overview.png

Everything shown comes from the study's own output folder: a stored volume with its foreground mask,
the last snapshot of pretraining, the PCA of the feature map, and the scores of the first task.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssl_pipeline.preprocess.prepare import FOREGROUND, model_input
from ssl_pipeline.report.data.report_data import read_feature_pca
from ssl_pipeline.report.data.results import (
    TaskResult,
    initialization_title,
    method_title,
    read_task_results,
)
from ssl_pipeline.report.render import figures
from ssl_pipeline.report.render.images import (
    display_window,
    fill_missing,
    orient_for_display,
    to_grey,
)
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training import snapshots
from ssl_pipeline.training.run_record import read_run_record

Image = NDArray[np.float32]
CONTOUR = "#E69F00"
WIDTHS = (1.3, 2.75, 1.3, 1.5)  # of the panels, relative


def draw_overview(folder: Path, path: Path) -> None:
    """Draw the four panels of the study that wrote `folder`, into a PNG file."""
    figure = Figure(figsize=(13, 2.9), layout="constrained", dpi=110)
    panels = figure.subplots(1, 4, width_ratios=WIDTHS)
    features = read_feature_pca(folder / "pretrain")
    index = len(features["ids"]) // 2
    _draw_slice(panels[0], folder, str(features["ids"][index]))
    _draw_crop(panels[1], folder / "pretrain")
    _draw_features(panels[2], features["pca"][index])
    _draw_scores(panels[3], folder)
    figure.savefig(path)


def _draw_slice(axes: Any, folder: Path, scan: str) -> None:
    """The middle axial slice of a stored volume, and the outline of its foreground."""
    catalog = Catalog.read(folder / "preprocess" / "catalog.parquet")
    entry = catalog.by_id(scan)
    _, y, x = entry.shape
    block = CropReader(folder / "preprocess" / "volumes", catalog).read_crop(
        scan, (entry.shape[0] // 2, 0, 0), (1, y, x)
    )
    _, y_mm, x_mm = entry.spacing_mm
    _show(axes, model_input(block, entry.meta)[0], aspect=y_mm / x_mm)
    body = orient_for_display((block[1, 0] & FOREGROUND > 0).astype(np.float32))
    if body.min() < body.max():
        axes.contour(body, levels=[0.5], colors=CONTOUR, linewidths=1)
    axes.set_title("1  Store: scan and its mask", fontsize=9.5)


def _draw_crop(axes: Any, pretrain_folder: Path) -> None:
    """A masked crop beside its reconstruction, at the last step."""
    run = pretrain_folder / read_run_record(pretrain_folder).folder
    step, arrays = snapshots.read_images(run)[-1]
    crop = int(np.argmax(np.nanstd(arrays["input"], axis=(1, 2))))
    planes = [arrays[name][crop] for name in ("masked", "reconstruction", "input")]
    gap = np.full((planes[0].shape[0], 2), np.nan, np.float32)
    row = np.concatenate([planes[2], gap, planes[1], gap, planes[0]], axis=1)
    _show(axes, row, window=display_window(arrays["input"][crop]))
    axes.set_title(
        f"2  Pretrain: masked crop, reconstruction (step {step}), original", fontsize=9.5
    )


def _draw_features(axes: Any, colours: Image) -> None:
    """The first three principal components of a slice's tokens, as colours."""
    known: NDArray[np.bool_] = np.isfinite(colours).all(axis=2)
    rows, columns = (np.flatnonzero(known.any(axis=axis)) for axis in (1, 0))
    part = colours[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    axes.set_anchor("N")
    axes.imshow(fill_missing(orient_for_display(part)), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title("3  Encoder: feature map (PCA)", fontsize=9.5)


def _draw_scores(axes: Any, folder: Path) -> None:
    """Scores of the first evaluated task, by initialization, as the report summarises them."""
    tasks = {path.parent.name: ["probe", "finetune"] for path in folder.glob("*/*/results.json")}
    found = read_task_results(folder, dict(sorted(tasks.items())))
    own = next(results for results in found.values() if results)
    result, method = figures.primary_method(own)
    for init, rows in result.series(method).items():
        _plot_series(axes, result, method, init, [row for row in rows if row.mean is not None])
    budgets = result.label_budgets(method)
    axes.set_xticks(range(len(budgets)), [result.budget_text(number) for number in budgets])
    axes.set_xlim(-0.5, len(budgets) + 0.2)
    axes.margins(y=0.15)
    axes.set_xlabel("labelled subjects", fontsize=9)
    axes.set_ylabel(result.metric.title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(0.55, 0.5))
    axes.set_title(f"4  Evaluate: {result.name}, {method_title(method)}", fontsize=9.5)


def _plot_series(axes: Any, result: TaskResult, method: str, init: str, rows: list[Any]) -> None:
    colour, marker, _ = figures.marker_styles(result.initializations)[init]
    budgets = result.label_budgets(method)
    places = [budgets.index(row.subjects) for row in rows]
    means = [row.mean for row in rows]
    axes.plot(places, means, color=colour, marker=marker, label=initialization_title(init))
    for place, row in zip(places, rows, strict=True):
        if row.interval:
            axes.plot([place, place], row.interval, color=colour)


def _show(
    axes: Any, plane: Image, *, window: tuple[float, float] | None = None, aspect: float = 1.0
) -> None:
    """A plane in grey, turned as radiologists look at it."""
    low, high = window or display_window(plane)
    axes.set_anchor("N")
    axes.imshow(to_grey(orient_for_display(plane), low, high), aspect=aspect)
    axes.set_axis_off()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="output folder of a finished study")
    parser.add_argument("path", type=Path, help="PNG file to write")
    draw_overview(**vars(parser.parse_args()))
