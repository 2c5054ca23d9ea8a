"""Numbers, pictures and orientation."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ssl_pipeline import formatting
from ssl_pipeline.evaluation.cells import PIXELS, Cell, CellRecord, save_cell
from ssl_pipeline.evaluation.prediction.calibration import Calibration
from ssl_pipeline.evaluation.records import SubgroupGap
from ssl_pipeline.preprocess.prepare import FOREGROUND, VALID, PreparedVolume, VolumeMeta
from ssl_pipeline.report.render import figures
from ssl_pipeline.report.render.figures import Picture
from ssl_pipeline.report.render.images import MISSING_COLOUR, fill_missing
from ssl_pipeline.report.render.previews import foreground_previews, volume_previews
from ssl_pipeline.report.render.segmentation_overlay import segmentation_overlays
from ssl_pipeline.report.sections import dataset
from ssl_pipeline.report.sections.calibration import calibration_panels, model_calibration
from ssl_pipeline.report.sections.subgroups import subgroup_metric_tables, subgroup_tables
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.writer import write_volume
from ssl_pipeline.volumes.inventory import Inventory
from tests.export.conftest import save_random_model
from tests.report.study_folder import CROPS, VOXELS, StudyFolder, gaps, results

INIT_TITLES = ("label", "pretrained, Dice 1.00", "random weights, Dice .50")


def _pixels(picture: Picture) -> np.ndarray:
    content = base64.b64decode(picture.uri.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float64)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.934, ".93"), (1.0, "1.00"), (0.999, "1.00"), (-0.05, "−.05"), (-0.001, ".00"), (None, "–")],
)
def test_scores(value: float | None, text: str) -> None:
    assert formatting.format_score(value) == text


def test_intervals_and_differences() -> None:
    assert formatting.format_with_interval(0.93, 0.9, 0.951) == ".93 [.90, .95]"
    assert formatting.format_with_interval(0.93, None, None) == ".93"
    assert formatting.format_with_spread(0.93, 0.02) == ".93 ± .02"
    assert formatting.format_difference(-0.12, -0.2, 0.04) == "−.120 [−.200, +.040]"


def test_groups_have_a_column_each_and_a_table_a_metric(study: StudyFolder) -> None:
    study.tasks = {"side": CROPS}
    content = results(gaps((0.1, 0.05, 0.15)), subjects=(2, 0))
    gap = SubgroupGap(
        attribute="site",
        method="linear",
        initialization="pretrained",
        subjects=0,
        mean=0.05,
        low=-0.01,
        high=0.11,
        worst="south",
        best="north",
    )
    study.write_results("side", "probe", content.model_copy(update={"gaps": (gap,)}))
    task_results = study.report_data.results_by_task["side"]
    (scores,) = subgroup_tables(task_results)
    assert scores.head == ("method", "initialization", "north (10)", "south (2)", "gap")
    own, *others = scores.rows
    assert own[1:] == ("pretrained", *2 * (".90 [.87, .92]",), "+.050 [−.010, +.110]")
    assert [row[1] for row in others] == ["random weights", PIXELS]
    assert {row[-1] for row in others} == {"–"}
    areas, error = subgroup_metric_tables(task_results)
    assert areas.caption.startswith("AUC by site") and error.caption.startswith("calibration error")
    assert areas.rows[0] == ("linear probe", "pretrained", *2 * (".95 [.91, .97]",))
    assert error.rows[0] == ("linear probe", "pretrained", ".12", ".12")


def test_results_of_a_stage_that_no_longer_evaluates_a_task_are_left_out(
    study: StudyFolder,
) -> None:
    for stage in ("probe", "finetune"):
        study.write_results("side", stage, results(gaps((0.1, 0.05, 0.15))))
    for stages in (("probe",), ("probe", "finetune")):
        study.tasks = {"side": CROPS.model_copy(update={"stages": stages})}
        found = study.report_data.results_by_task["side"]
        assert tuple(result.stage for result in found) == stages


def test_a_score_that_no_scale_holds_leaves_the_figures_of_the_others(study: StudyFolder) -> None:
    study.tasks = {"side": CROPS}
    content = results(gaps((0.1, 0.05, 0.15)))
    first, *others = content.rows
    lost = first.model_copy(update={"mean": -1e250, "low": -1e300, "high": 1e300})
    study.write_results("side", "probe", content.model_copy(update={"rows": (lost, *others)}))
    (result,) = study.report_data.results_by_task["side"]
    assert all(picture.uri for picture in figures.score_panels([result]))
    assert figures.summary_panel(result, "linear").uri


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (250.0, "4 min 10 s"), (7500.0, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert formatting.format_duration(seconds) == text


def test_missing_values_have_a_colour_of_their_own() -> None:
    colours = np.full((2, 2, 3), 0.5, np.float32)
    colours[0, 0, 1] = np.nan
    assert np.allclose(fill_missing(colours)[0, 0], MISSING_COLOUR)
    assert np.allclose(fill_missing(colours)[1, 1], 0.5)


def _bright_corner_volume(
    folder: Path, body: tuple[slice, slice, slice] = np.s_[:, :, :]
) -> CropReader:
    """A volume (20, 30, 40) of (4, 2, 1) mm whose right, front, top eighth is bright."""
    data = np.zeros((2, 20, 30, 40), np.int16)
    data[0] = -1000
    data[0, 10:, 15:, 20:] = 1000
    data[1] = VALID
    data[1][body] |= FOREGROUND
    affine = tuple(tuple(row) for row in np.diag([1.0, 2.0, 4.0, 1.0]).tolist())
    meta = VolumeMeta(
        modality="CT",
        shape=(20, 30, 40),
        affine=affine,
        spacing_mm=(4.0, 2.0, 1.0),
        source_affine=affine,
        source_shape=(40, 30, 20),
        scale=1.0,
        offset=0.0,
        low=-1000.0,
        high=1000.0,
        centre=0.0,
        width=500.0,
        foreground_share=1.0,
        foreground_centre=(9.5, 14.5, 19.5),
        valid_share=1.0,
    )
    write_volume(folder / "corner.zarr", PreparedVolume(data, meta), StoreSettings(), "key")
    entry = Entry("corner", "s", "", "", [], "CT", "", "", "train", 1.0, "r", {}, {}, meta.shape,
                  meta.spacing_mm, 1, "", "", json.dumps(meta.to_json()))  # fmt: skip
    return CropReader(folder, Catalog((entry,)))


def test_thumbnails_are_upright_and_in_millimetres(tmp_path: Path) -> None:
    reader = _bright_corner_volume(tmp_path)
    (picture,) = volume_previews(reader.catalog, reader)
    image = _pixels(picture).mean(axis=2)
    scale = 170 / 80  # 20 slices of 4 mm are the longest side
    width, across = round(40 * scale), round(60 * scale)
    assert image.shape == (170, 2 * width + across + 8)
    axial, coronal = image[:, :width], image[:, width + 4 : 2 * width + 4]
    sagittal = image[:, 2 * width + 8 :]
    middle = 170 // 2
    # Bright is the patient's right, front and top: left in axial and coronal, and up in all.
    assert axial[middle - 30, 10] > 200 > 60 > axial[middle + 30, 10]
    assert axial[middle - 30, width - 10] < 60
    assert coronal[10, 10] > 200 > 60 > coronal[160, 10]
    assert coronal[10, width - 10] < 60
    assert sagittal[10, 10] > 200 > 60 > sagittal[160, 10]
    assert sagittal[10, across - 10] < 60


def test_a_preview_has_the_outline_of_the_foreground(tmp_path: Path) -> None:
    reader = _bright_corner_volume(tmp_path, body=np.s_[5:15, 5:25, 10:30])
    (picture,) = volume_previews(reader.catalog, reader)
    red, _, blue = np.moveaxis(_pixels(picture), 2, 0)
    is_outline = red > blue + 80
    top, left = 85 - 64, 0  # of the axial plane, 2.125 pixels a mm
    assert is_outline[85, round(10 * 2.125)]  # between right and left side of the mask
    assert is_outline[top + round(10 * 2.125), 42]
    assert not is_outline[85, 30:55].any()
    assert not is_outline[85, left : left + 15].any()


def test_of_every_root_the_mask_of_the_median_share_is_drawn(tmp_path: Path) -> None:
    reader = _bright_corner_volume(tmp_path)
    (entry,) = reader.catalog.entries
    entries = [
        replace(entry, root=root, meta_json=json.dumps(replace(entry.meta, **share).to_json()))
        for root in ("two", "one")
        for share in ({"foreground_share": part} for part in (0.9, 0.1, 0.4))
    ]
    pictures = foreground_previews(Catalog(tuple(entries)), reader)
    assert [picture.title.split(" · ")[1:] for picture in pictures] == [
        [root, "CT", "20 × 30 × 40 voxels of 4 × 2 × 1 mm (z, y, x)", "40 % foreground"]
        for root in ("one", "two")
    ]


def test_labels_that_the_crop_cuts_are_listed(tmp_path: Path) -> None:
    (entry,) = _bright_corner_volume(tmp_path).catalog.entries
    assert dataset.cut_label_table(Catalog((entry,))) is None
    meta = replace(entry.meta, cut_labels={"heart": 0.25})
    cut = replace(entry, meta_json=json.dumps(meta.to_json()))
    table = dataset.cut_label_table(Catalog((entry, cut)))
    assert table is not None
    assert [tuple(row) for row in table.rows] == [("corner", "heart", "25.0 %")]


def test_an_overlay_shows_the_median_scan_beside_its_label(whole: StudyFolder) -> None:
    folder = whole.folder / "finetune" / "voxels"
    catalog = Catalog.read(whole.folder / "preprocess" / "catalog.parquet")
    shown_scan = catalog.entries[1]
    for init, dice in (("pretrained", (0.9, 1.0, 1.0)), ("random", (0.2, 0.5, 0.9))):
        cell = Cell("full", init, 0, 0)
        rows = []
        for entry, score in zip(catalog.entries, dice, strict=True):
            name = f"predictions/{cell.name}/{entry.id}.nii.gz"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            label = nib.load(whole.label_file(entry.id, "sides"))
            data = np.asarray(label.dataobj) * (init == "pretrained")
            nib.save(nib.Nifti1Image(data.astype(np.uint8), label.affine), folder / name)
            rows.append({"scan": entry.id, "dice": [score, None], "file": name})
        save_cell(cell, CellRecord(key="key", encoder="", predictions=rows), folder)
    (result,) = whole.report_data.results_by_task["voxels"]
    reader = CropReader(whole.folder / "preprocess" / "volumes", catalog)
    pictures, marks = segmentation_overlays(result, VOXELS, reader, whole.label_file)
    assert tuple(picture.title for picture in pictures) == INIT_TITLES
    assert shown_scan.id in pictures[0].alt
    assert [mark.text for mark in marks] == ["left", "right"]
    label, same, empty = (_pixels(picture) for picture in pictures)
    assert np.array_equal(label, same)
    tint = np.abs(label - label.mean(axis=2, keepdims=True)).max(axis=2) > 10
    assert 0.1 < tint.mean() < 0.9
    assert np.ptp(empty, axis=2).max() == 0  # grey alone
    left, right = label[:, : label.shape[1] // 2], label[:, label.shape[1] // 2 :]
    assert left[..., 2].mean() > right[..., 2].mean()  # "right" is blue, on the picture's left

    worst, *others = catalog.entries
    of_two_roots = replace(catalog, entries=(replace(worst, root="other"), *others))
    reader = CropReader(whole.folder / "preprocess" / "volumes", of_two_roots)
    pictures, _ = segmentation_overlays(result, VOXELS, reader, whole.label_file)
    assert [picture.title for picture in pictures] == [
        *("clinic: label", "clinic: pretrained, Dice 1.00", "clinic: random weights, Dice .90"),
        *("other: label", "other: pretrained, Dice .90", "other: random weights, Dice .20"),
    ]


def test_a_segmentation_whose_cells_failed_has_no_overlay(whole: StudyFolder) -> None:
    folder = whole.folder / "finetune" / "voxels"
    for init in ("pretrained", "random"):
        failed = CellRecord(key="key", encoder="", failed="out of memory")
        save_cell(Cell("full", init, 0, 0), failed, folder)
    catalog = Catalog.read(whole.folder / "preprocess" / "catalog.parquet")
    (result,) = whole.report_data.results_by_task["voxels"]
    reader = CropReader(whole.folder / "preprocess" / "volumes", catalog)
    assert segmentation_overlays(result, VOXELS, reader, whole.label_file)[0] == []


def test_every_scan_is_counted_once(unchanged: StudyFolder) -> None:
    inventory = Inventory.read(unchanged.folder / "inventory" / "scans.parquet")
    table = dataset.scan_table(inventory)
    accepted = sum(int(str(row[3])) for row in table.rows)
    rejected = sum(int(str(row[-1])) for row in table.rows)
    assert (accepted, rejected) == (3, 1)
    splits = [sum(int(str(row[at])) for row in table.rows) for at in (5, 6, 7, 8)]
    assert sum(splits) == 3


def test_calibration_uses_the_cells_of_all_seeds(study: StudyFolder) -> None:
    study.tasks = {"side": CROPS}
    study.write_results("side", "probe", results(gaps((0.1, 0.05, 0.15))))
    folder = study.folder / "probe" / "side"
    (result,) = study.report_data.results_by_task["side"]
    assert calibration_panels([result]) == []  # without cells there is nothing to draw
    for init in result.initializations:
        for seed in range(3):
            row = {"subject": "s", "target": seed % 2, "probability": [0.2, 0.8]}
            record = CellRecord(key="key", encoder="", predictions=[row] * 10)
            save_cell(Cell("linear", init, 0, seed), record, folder)
    (picture,) = calibration_panels([result])
    assert picture.title == "linear probe"
    assert picture.alt.startswith("linear probe: calibration error pretrained .12, random weights")


def test_a_calibrated_model_has_a_panel_of_its_voxels(tmp_path: Path) -> None:
    assert model_calibration(tmp_path) == ("", [])
    fitted = Calibration(
        temperature=1.5,
        n_subjects=12,
        error_before=0.06,
        error_after=0.02,
        scored_error_before=0.2,
        scored_error_after=0.05,
        scored_bins_before=((0.6, 0.5, 40), (1.0, 0.7, 40)),
        scored_bins_after=((0.5, 0.5, 40), (0.8, 0.7, 40)),
    )
    found = {}
    for name, calibration in (
        ("none", None),
        ("earlier", fitted.model_copy(update={"scored_bins_before": (), "scored_bins_after": ()})),
        ("fitted", fitted),
    ):
        model = save_random_model(tmp_path / name, calibration=calibration)
        found[name] = model_calibration(model)
    assert [len(panels) for _, panels in found.values()] == [0, 0, 1]
    assert "to calibrate them" in found["none"][0] and "temperature of 1.5" in found["earlier"][0]
    _, (panel,) = found["fitted"]
    assert panel.title == "the task's model, by voxel"
    assert panel.alt.endswith("calibration error as learned .20, with its temperature .05.")
    assert panel.uri.startswith("data:image/svg+xml")
