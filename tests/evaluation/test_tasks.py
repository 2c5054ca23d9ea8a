"""Labelled crops and label maps of tasks."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.data.crops import padded_window, read_crops, read_labelled_crops
from ssl_pipeline.evaluation.data.label_maps import LabelMaps
from ssl_pipeline.evaluation.data.labelled_crops import Pose, middle_box, whole_box
from ssl_pipeline.evaluation.tasks import (
    Classification,
    CropClassification,
    Regression,
    Segmentation,
)
from ssl_pipeline.preprocess.prepare import FOREGROUND, model_input
from ssl_pipeline.store.catalog import Entry

CLASSES = {3: "bright", 5: "dark"}
SIZE = (16, 16, 16)


def crops(**changes):
    return CropClassification(
        **({"title": "Blobs", "label": "blobs", "classes": CLASSES} | changes)
    )


def test_a_scan_gives_a_crop_at_its_centre(planted, tmp_path):
    task = Classification(title="C", target="corner", classes={0: "no", 1: "yes"})
    entries = task.usable_entries(planted.catalog.entries)
    labelled = task.labelled_crops(entries, LabelMaps(tmp_path, planted.label_file), SIZE, 0)
    assert len(labelled) == len(planted.catalog.entries)
    for entry, crop in zip(entries, labelled, strict=True):
        middle = np.array(crop.start) + 8
        assert np.abs(middle - np.array(entry.shape) / 2).max() <= 1
        assert crop.target == int(entry.targets["corner"])


@pytest.fixture
def off_centre(store_volumes, anatomy, tmp_path):
    """Two scans whose body lies at one end of what is stored, and the label of an organ in one."""
    body, organ = (np.zeros(anatomy.data.shape, np.uint8) for _ in range(2))
    body[8:10, 8:20, 8:20] = body[28, 10, 10] = 1
    organ[20:24, 10:13, 12:13] = 2
    path = tmp_path / "organ.nii"
    nib.save(nib.Nifti1Image(organ, anatomy.affine), path)
    row = {"volume": anatomy, "split": "train", "body": replace(anatomy, data=body)}
    labels = {"a": {"organ": str(path)}, "b": {"organ": ""}}
    targets = {"age": "50"}
    rows = [row | {"subject": name, "labels": labels[name], "targets": targets} for name in "ab"]
    return store_volumes(rows)


def middle_of_crop(study, tmp_path, **settings):
    """The middle of the first scan's crop, voxels (z, y, x), and the usable scans."""
    task = Regression(title="T", **({"target": "age"} | settings))
    entries, labels = (
        task.usable_entries(study.catalog.entries),
        LabelMaps(tmp_path, study.label_file),
    )
    crop = task.labelled_crops(entries, labels, SIZE, 0)[0]
    return np.array(crop.start) + 7.5, entries


def test_a_crop_may_lie_on_the_centre_of_mass_of_the_body(off_centre, tmp_path):
    middle, (entry, _) = middle_of_crop(off_centre, tmp_path, crop_centre="foreground")
    where = np.argwhere(off_centre.reader.read_volume(entry.id)[1] & FOREGROUND)
    assert np.abs(middle - where.mean(axis=0)).max() <= 0.5
    of_volume, _ = middle_of_crop(off_centre, tmp_path)
    assert np.abs(of_volume - (np.array(entry.shape) - 1) / 2).max() <= 0.5
    assert abs(middle[2] - of_volume[2]) > 5


def test_a_crop_may_lie_on_a_label_and_scans_without_it_are_left_out(off_centre, tmp_path):
    middle, entries = middle_of_crop(off_centre, tmp_path, crop_centre="organ")
    labels = LabelMaps(tmp_path, off_centre.label_file).load(entries[0], "organ")
    assert np.abs(middle - np.argwhere(labels == 2).mean(axis=0)).max() <= 0.5
    assert [entry.subject for entry in entries] == ["a"]
    task = Regression(title="T", target="age", crop_centre="organ")
    assert [truth.name for truth in task.truth_names()] == ["age", "organ"]
    assert "lies on the label organ" in task.crop_note(entries, SIZE)


def test_a_label_to_lie_on_that_is_empty_is_named(off_centre, tmp_path, anatomy):
    empty = nib.Nifti1Image(np.zeros(anatomy.data.shape, np.uint8), anatomy.affine)
    nib.save(empty, tmp_path / "empty.nii")
    task = Regression(title="T", target="age", crop_centre="organ")
    entries = task.usable_entries(off_centre.catalog.entries)
    labels = LabelMaps(tmp_path / "maps", lambda scan, name: tmp_path / "empty.nii")
    with pytest.raises(UserError, match=f"'organ' of scan {entries[0].id} is empty where the scan"):
        task.labelled_crops(entries, labels, SIZE, 0)


def test_a_crop_does_not_lie_on_what_is_predicted_nor_in_two_places():
    with pytest.raises(ValueError, match="crop_centre is organ, which is what is predicted"):
        Regression(title="T", label="organ", crop_centre="organ")
    with pytest.raises(ValueError, match="whole_scan shows all of the scan"):
        Regression(title="T", target="age", crop_centre="organ", whole_scan=True)


def test_a_crop_may_show_the_whole_scan_at_a_coarser_spacing(planted, tmp_path):
    """A volume of 25 x 30 x 26 voxels in a crop of 16: shrunk by 30 / 16 along all axes."""
    entry = planted.catalog.entries[0]
    task = Regression(title="T", target="corner", whole_scan=True)
    labels = LabelMaps(tmp_path, planted.label_file)
    (crop,) = task.labelled_crops([entry], labels, SIZE, 0)
    found = read_labelled_crops(planted.volumes, [crop], SIZE)
    longest = max(entry.shape)
    spacing = np.array(entry.meta.spacing_mm) * longest / 16
    assert found.spacing_mm[0] == pytest.approx(spacing, rel=0.02)
    stored = model_input(planted.reader.read_volume(entry.id), entry.meta)
    low = entry.meta.input_scaling[2]
    scale = (np.array(crop.extent) / 16).prod()
    assert (found.images - low).sum() * scale == pytest.approx((stored - low).sum(), rel=1e-3)
    assert found.valid.sum() * scale == pytest.approx(stored.size, rel=1e-3)


def test_a_whole_scan_that_fits_is_not_enlarged(planted, tmp_path):
    entry = planted.catalog.entries[0]
    assert whole_box(entry.shape, (64, 64, 64)) == middle_box(entry.shape, (64, 64, 64))


def test_results_say_how_much_of_a_scan_its_crop_shows(planted):
    entries = planted.catalog.entries
    share = round(100 * 16**3 / np.prod(entries[0].shape))
    task = Regression(title="T", target="corner")
    assert f"up to {share} % of the stored volume" in task.crop_note(entries, SIZE)
    whole = Regression(title="T", target="corner", whole_scan=True)
    assert "whole stored volume" in whole.crop_note(entries, SIZE)


def entry_of(**targets):
    """A scan of the catalog with these targets."""
    return Entry(
        *("a", "s", "", "", [], "MR", "", "", "train", 1.0, "one", targets, {}),
        *((1, 1, 1), (1.0, 1.0, 1.0), 0, *"123"),
    )


def test_values_that_are_no_class_are_named_with_their_number():
    task = Classification(title="C", target="sex", classes={0: "m", 1: "f"})
    entries = [entry_of(sex=value) for value in ("m", "1", "x", "x", "y")]
    assert task.usable_entries(entries) == entries[:2]
    assert task.exclusion_note([*entries[2:], entry_of()]) == (
        "4 scans without a label for this task were left out."
        " Values of sex that are no class: x (2), y (1)."
    )
    assert task.exclusion_note([]) == ""
    with pytest.raises(UserError, match="target 'sex' is F, none of which is in classes"):
        task.usable_entries([entry_of(sex="m"), entry_of(sex="F")])


@pytest.mark.parametrize(
    ("classes", "names", "values"),
    [
        ({0: "left", 1: "right"}, ("left", "right"), ("0", "1")),
        ({"left": 0, "right": 1}, ("left", "right"), ("0", "1")),
        ({"healthy": "NOR", "ill": " DCM "}, ("healthy", "ill"), ("NOR", "DCM")),
        (["NOR", "DCM"], ("NOR", "DCM"), ("NOR", "DCM")),
        ([2, 4], ("2", "4"), ("2", "4")),
        ({"no": False, "yes": True}, ("no", "yes"), ("False", "True")),
        ({-1: "left", 0.5: "right"}, ("left", "right"), ("-1", "0.5")),
    ],
)
def test_classes_are_numbers_or_words_whose_order_numbers_them(classes, names, values, planted):
    task = Classification(title="C", target="group", classes=classes)
    assert task.class_names == names
    stored = planted.catalog.entries[0]
    entries = [replace(stored, targets={"group": word}) for word in (*values, *names, "HCM")]
    assert task.usable_entries(entries) == entries[:4]
    crops = task.labelled_crops(entries, LabelMaps(Path(), Path), SIZE, 0)
    assert [crop.target for crop in crops] == [0, 1, 0, 1]
    for mode in ("python", "json"):
        assert Classification.model_validate(task.model_dump(mode=mode)) == task


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ({"healthy": "NOR", "ill": "NOR"}, "classes has the value NOR twice"),
        ({"NOR": "DCM", "ill": "nor"}, "classes has the name NOR, which is the value of another"),
        ({"ill": "n/a", "well": "NOR"}, "the class ill, whose value or name means in a table that"),
        (
            {"ill": ["DCM", "HCM"], "well": "NOR"},
            "is no value of a target: write one word or number",
        ),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(classes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Classification(title="C", target="group", classes=classes)


def test_training_scans_are_chosen_by_words_as_tables_hold_them():
    task = crops(train_on={"grade": [" II", 1, True]})
    chosen = [word for word in ("II", "1", "True", "2") if task.uses(entry_of(grade=word))]
    assert chosen == ["II", "1", "True"]


def test_classes_of_a_label_are_numbers_on_whichever_side_they_stand():
    given = {"title": "S", "label": "blobs"}
    swapped = Segmentation(**given, classes={"bright": 3, "dark": 5})
    assert swapped == Segmentation(**given, classes=CLASSES)
    with pytest.raises(ValueError, match="the value 'B', and label files hold whole numbers"):
        Segmentation(**given, classes={"bright": "B"})


def test_crops_lie_about_the_centroid_of_each_class(planted, tmp_path):
    task, labels = crops(), LabelMaps(tmp_path, planted.label_file)
    entry = task.usable_entries(planted.catalog.entries)[0]
    labelled = task.labelled_crops([entry], labels, SIZE, 0)
    assert [crop.target for crop in labelled] == [0, 1]
    for crop, value in zip(labelled, CLASSES, strict=True):
        where = np.argwhere(labels.load(entry, "blobs") == value)
        assert np.abs(np.array(crop.start) + 7.5 - where.mean(axis=0)).max() <= 0.5


def test_more_crops_lie_about_voxels_of_the_class_and_repeat_with_the_seed(planted, tmp_path):
    task, labels = crops(crops_per_class=3), LabelMaps(tmp_path, planted.label_file)
    entry = task.usable_entries(planted.catalog.entries)[0]
    first, again, other = (task.labelled_crops([entry], labels, SIZE, seed) for seed in (0, 0, 1))
    assert len(first) == 6
    assert first == again != other
    for crop in first:
        z, y, x = (at + 8 for at in crop.start)
        assert labels.load(entry, "blobs")[z, y, x] == list(CLASSES)[crop.target]


def test_crops_in_a_pose_show_the_same_place_turned_and_zoomed(planted, tmp_path):
    """Known truth: a quarter turn in the plane of rows and columns is that of the array."""
    entry = planted.catalog.entries[0]
    labels = LabelMaps(tmp_path, planted.label_file)
    straight = crops().labelled_crops([entry], labels, SIZE, 0)[0]
    quarter = Pose(1.0, ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)))
    plain, turned = (
        read_labelled_crops(planted.volumes, [replace(straight, pose=pose)], SIZE)
        for pose in (None, quarter)
    )
    middle = slice(2, -2)  # what only one of both shows lies at the edges
    expected = np.rot90(plain.images[0], -1, axes=(1, 2))[:, middle, middle]
    assert np.allclose(turned.images[0][:, middle, middle], expected, atol=1e-4)
    assert not np.allclose(plain.images, turned.images, atol=0.1)
    assert np.allclose(turned.spacing_mm, plain.spacing_mm)


def test_poses_are_drawn_for_each_crop_and_repeat_with_the_seed(planted, tmp_path):
    entry = planted.catalog.entries[0]
    labels = LabelMaps(tmp_path, planted.label_file)
    posed = crops(pose={"probability": 1, "rotation_deg": 180, "zoom": 0.5}, crops_per_class=2)
    first, again, other = (posed.labelled_crops([entry], labels, SIZE, s) for s in (0, 0, 1))
    assert first == again and first != other
    assert len({crop.pose.zoom for crop in first}) == len(first)
    straight = crops(crops_per_class=2).labelled_crops([entry], labels, SIZE, 0)
    assert [crop.start for crop in first] == [crop.start for crop in straight]
    read = read_labelled_crops(planted.volumes, first, SIZE)
    zooms = [crop.pose.zoom for crop in first]
    assert np.allclose(read.spacing_mm, np.array(entry.meta.spacing_mm) * np.array(zooms)[:, None])
    assert read.images.shape == (len(first), *SIZE) and read.valid.any(axis=(1, 2, 3)).all()


def test_a_crop_that_reaches_out_of_the_volume_is_not_valid_there(planted):
    entry = planted.catalog.entries[0]
    found = read_crops(planted.reader, [(entry, (-8, 0, 0))], SIZE)
    assert found.valid[0, :8].max() == 0
    assert found.valid[0, 8:].min() == 1
    assert found.images.dtype == np.float32
    assert found.spacing_mm.tolist() == [list(entry.meta.spacing_mm)]


def test_a_label_on_another_grid_is_brought_to_the_images(planted, tmp_path):
    task = crops()
    entry = task.usable_entries(planted.catalog.entries)[0]
    own = nib.load(planted.label_file(entry.id, "blobs"))
    half = np.repeat(np.asarray(own.dataobj), 2, axis=0)[:20]  # twice as fine, and cut off along x
    affine = own.affine @ np.diag([0.5, 1, 1, 1])
    affine[:3, 3] -= own.affine[:3, 0] / 4
    file = tmp_path / "fine.nii.gz"
    nib.save(nib.Nifti1Image(half, affine), file)
    whole = LabelMaps(tmp_path / "maps", planted.label_file).load(entry, "blobs")
    found = LabelMaps(tmp_path / "maps", lambda scan, name: file).load(entry, "blobs")
    assert set(np.unique(found)) <= {0, 3, 5, 255}
    known = found != 255
    assert 0.3 < known.mean() < 0.5
    assert (found[known] == whole[known]).all()


def test_values_that_a_task_does_not_name_are_background_and_255_stays_outside():
    task = Segmentation(title="S", label="blobs", classes={5: "dark", 300: "far"})
    values = np.array([[[0, 3, 5, 300, 255]]], np.int16)
    assert task.class_indices(values).tolist() == [[[0, 0, 1, 2, 255]]]


def test_a_missing_class_is_not_annotated_only_if_the_task_says_so():
    found = np.array([[[0, 1, 255]]], np.uint8)
    given = {"title": "S", "label": "blobs", "classes": CLASSES}
    assert Segmentation(**given).annotated_classes(found) == (True, True)
    assert Segmentation(**given, missing_class_means="not annotated").annotated_classes(found) == (
        True,
        False,
    )


@pytest.mark.parametrize("value", [0, 255])
def test_reserved_values_are_no_class(value):
    with pytest.raises(ValueError, match="background and 'not annotated'"):
        Segmentation(title="S", label="blobs", classes={value: "x"})


def test_a_window_outside_of_the_labels_is_marked_so():
    indices = np.ones((4, 4, 4), np.uint8)
    found = padded_window(indices, (-2, 0, 2), (4, 4, 4), 255)
    assert (found[2:, :, :2] == 1).all()
    assert (found[:2] == 255).all()
    assert (found[:, :, 2:] == 255).all()
    assert (padded_window(indices, (9, 0, 0), (4, 4, 4), 255) == 255).all()
