"""Each fault of a volume gives its own sentence; real volumes have none."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from ssl_pipeline.volumes.config import Root
from ssl_pipeline.volumes.quality_control import (
    QualityThresholds,
    ScanQuality,
    check_quality,
    size_fault,
)
from ssl_pipeline.volumes.readers import Source, read_volume
from ssl_pipeline.volumes.readers.dicom_split import measure_slice_spacing
from ssl_pipeline.volumes.volume import Volume, VoxelGrid
from tests.volumes.volume_writers import rotated_affine

QUALITY = QualityThresholds()


def change_voxels(brain, how):
    data = brain.data.astype(np.float32)
    how(data)
    return Volume(data, brain.affine)


def test_a_real_volume_is_accepted(brain):
    assert check_quality(brain, None, QualityThresholds()) == ScanQuality()


def test_values_that_are_no_numbers_are_missing(brain):
    def spoil(data):
        data[data < np.percentile(data, 30)] = np.nan
        data[3, 4, 5] = -np.inf

    sparse = QualityThresholds(min_valid_share=0.8)
    volume = change_voxels(brain, spoil)
    assert check_quality(volume, None, QualityThresholds()) == ScanQuality(
        repair="3e-05 of its voxels are infinite, and count as not measured"
    )
    fault = check_quality(volume, None, sparse).fault
    assert fault == "only 0.7 of its voxels hold a value; 0.8 are needed"
    nothing = Volume(np.full(brain.data.shape, np.nan, np.float32), brain.affine)
    fault = check_quality(nothing, None, QualityThresholds()).fault
    assert fault == "every voxel is NaN or infinite"


def test_constant(brain):
    volume = Volume(np.full_like(brain.data, 7), brain.affine)
    assert (
        check_quality(volume, None, QualityThresholds()).fault
        == "every voxel has the same value, 7"
    )


def test_a_mask_is_no_image(brain):
    volume = Volume((brain.data > 5000).astype(np.uint8), brain.affine)
    assert "saturated, or a mask" in check_quality(volume, None, QualityThresholds()).fault


def regions(brain, count):
    """A map of labels: the head, cut into boxes of 5 voxels that have values up to `count`."""
    x, y, z = np.indices(brain.data.shape) // 5
    return np.where(brain.data > 4000, 1 + (x + 7 * y + 63 * z) % count, 0)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("count", [27, 117])
def test_a_map_of_labels_is_no_image(count, kind, modality, brain):
    volume = Volume(regions(brain, count).astype(kind), brain.affine)
    fault = check_quality(volume, None, QualityThresholds(), modality).fault
    assert fault.endswith("have the value of the next one: a map of labels and no image")
    lenient = QualityThresholds(max_flat_share=1)
    assert check_quality(volume, None, lenient, "MR").fault == ""


def test_a_map_of_labels_with_nan_for_background_is_no_image(brain):
    labels = regions(brain, 27).astype(np.float32)
    labels[labels == 0] = np.nan
    assert "map of labels" in check_quality(Volume(labels, brain.affine), None, QUALITY).fault


@pytest.mark.parametrize("levels", [60, 255])
def test_an_mr_that_is_quantised_to_8_bits_is_an_image(levels, brain):
    scaled = (brain.data / brain.data.max() * levels).astype(np.uint8)
    assert check_quality(Volume(scaled, brain.affine), None, QUALITY, "MR") == ScanQuality()


def test_saturated(brain):
    clipped = Volume(np.minimum(brain.data, np.quantile(brain.data, 0.8)), brain.affine)
    assert "saturated" in check_quality(clipped, None, QualityThresholds()).fault
    assert check_quality(clipped, None, QualityThresholds(max_saturated_share=0.5)).fault == ""


def test_missing_values_are_not_checked(brain):
    data = np.full_like(brain.data, 0)
    root = Root(path="x", missing_value=0)
    assert (
        "stands for nothing measured"
        in check_quality(Volume(data, brain.affine), root, QualityThresholds()).fault
    )
    data[:8] = 5
    assert (
        "same value, 5"
        in check_quality(Volume(data, brain.affine), root, QualityThresholds()).fault
    )


@pytest.mark.parametrize(
    ("crop", "spacing", "sentence"),
    [
        (np.s_[:, :, :5], (4, 4, 4), "only 5 voxels along its shortest axis; 8 are needed"),
        (
            np.s_[:],
            (0.9, 0.9, 0.04),
            "only 1 mm along its shortest axis; 20 are needed; voxels of only 0.04 mm; 0.05 mm is"
            " the limit",
        ),
        (
            np.s_[:],
            (99, 9, 9),
            "3267 mm along its longest axis; 2500 mm is the limit; voxels of up to 99 mm; 10 mm is"
            " the limit",
        ),
        (np.s_[:], (0.5, 0.5, 0.5), "only 12.5 mm along its shortest axis; 20 are needed"),
        (np.s_[:], (1, 1, 12), "voxels of up to 12 mm; 10 mm is the limit"),
    ],
)
def test_sizes(crop, spacing, sentence, brain):
    volume = Volume(brain.data[crop], rotated_affine(spacing=spacing))
    assert check_quality(volume, None, QualityThresholds()).fault == sentence


def test_a_tilted_gantry_is_repaired_or_rejected(brain):
    affine = brain.affine.copy()
    affine[1, 2] = 2 * np.tan(np.radians(14))
    tilted = Volume(brain.data, affine)
    assert check_quality(tilted, None, QualityThresholds()) == ScanQuality(
        "", "its axes, 14.0 degrees off a right angle as by a tilted gantry, are straightened"
    )
    rejected = check_quality(tilted, None, QualityThresholds(max_shear_deg=13))
    assert rejected == ScanQuality(
        "its axes are 14.0 degrees off a right angle, as by a tilted gantry"
    )


@pytest.mark.parametrize(
    ("heights", "sentence"),
    [
        (range(25), ""),
        ([*range(12), *range(13, 26)], "slices are missing (gaps of 1 to 2 mm); copy"),
        ([*range(0, 55, 5), *range(55, 84, 2)], "the distance of its slices changes from 5 to 2"),
        (np.cumsum([3] * 6 + [1] * 5 + [3] * 6), "the distance of its slices changes from 3 to 1"),
        (np.arange(25) ** 1.05, "its slices are unevenly spaced (gaps of 1 to 1.23 mm, up to"),
    ],
)  # fmt: skip
def test_slices_are_checked_by_the_studys_limit(heights, sentence, brain):
    places = np.array([(0, 0, height) for height in heights], float)
    volume = replace(brain, slice_spacing=measure_slice_spacing(places, np.array((0.0, 0, 1))))
    assert check_quality(volume, None, QualityThresholds()).fault.startswith(sentence)
    assert (check_quality(volume, None, QualityThresholds()) == ScanQuality()) == (not sentence)
    assert check_quality(volume, None, QualityThresholds(max_slice_offset_mm=99)) == ScanQuality()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), "is a localizer: its ImageType says LOCALIZER"),
        (("DERIVED", "SECONDARY", "MPR"), "derived object, not a scan: its ImageType says MPR"),
        (("DERIVED", "SECONDARY", "SCREEN SAVE"), "ImageType says SCREEN"),
        (("DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"), "says MIP, PROJECTION"),
        (("ORIGINAL", "PRIMARY", "AXIAL"), ""),
        (("DERIVED", "PRIMARY", "AXIAL"), ""),
    ],
)  # fmt: skip
def test_scouts_and_derived_objects(words, sentence, brain):
    fault = check_quality(replace(brain, image_type=words), None, QualityThresholds()).fault
    assert fault.endswith(sentence) and bool(fault) == bool(sentence)
    assert (
        check_quality(
            replace(brain, image_type=words), None, QualityThresholds(reject_image_types=())
        ).fault
        == ""
    )


def test_hounsfield_units(brain):
    hu = brain.data // 9 - 1000
    stored = Volume(hu + 1024, brain.affine)
    shifted = Root(path="x", intensity_offset=-1024)
    assert check_quality(Volume(hu, brain.affine), None, QualityThresholds(), "CT") == ScanQuality()
    assert check_quality(stored, shifted, QualityThresholds(), "CT") == ScanQuality()
    assert "set intensity_offset" in check_quality(stored, None, QualityThresholds(), "CT").fault
    assert check_quality(stored, None, QualityThresholds(), "MR") == ScanQuality()
    twice = check_quality(Volume(hu, brain.affine), shifted, QualityThresholds(), "CT").fault
    assert "in which tissue is about 0; correct intensity_offset" in twice
    unit = Volume((hu / 1000).astype(np.float32), brain.affine)
    assert (
        "no Hounsfield units; give the scan as"
        in check_quality(unit, None, QualityThresholds(), "CT").fault
    )
    inside = np.clip(hu, 20, 80) + np.random.default_rng(0).normal(0, 9, hu.shape)
    assert (
        check_quality(Volume(inside, brain.affine), None, QualityThresholds(), "CT")
        == ScanQuality()
    )


def as_ct(brain):
    """The head as a CT says it: noisy air about -1000, tissue about 0, bone above."""
    noise = np.random.default_rng(0).normal(0, 9, brain.data.shape)
    return np.where(brain.data < 2000, -1000, brain.data // 9 - 700) + np.rint(noise).astype("i2")


def in_air(brain):
    """The same with much air beside the head."""
    hu = as_ct(brain)
    return np.concatenate([hu, np.random.default_rng(1).normal(-1000, 9, hu.shape).astype("i2")])


def window(hu, low, high):
    return (np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize(("low", "high"), [(-1000, 1000), (-1024, 3071), (-160, 240)])
@pytest.mark.parametrize("padding", [None, -1024, -2000])
def test_a_windowed_ct_holds_no_hounsfield_units(padding, low, high, brain):
    data = window(as_ct(brain), low, high).astype(np.int16)
    if padding:
        data[:5] = padding
    lenient = QualityThresholds(max_saturated_share=1)
    fault = check_quality(Volume(data, brain.affine), None, lenient, "CT").fault
    assert "no Hounsfield units" in fault


def test_a_ct_that_was_clipped_to_soft_tissue_has_no_air(brain):
    data = np.clip(as_ct(brain), -160, 240)
    lenient = QualityThresholds(max_saturated_share=1)
    fault = check_quality(Volume(data, brain.affine), None, lenient, "CT").fault
    assert "are the lowest, -160, are no Hounsfield units" in fault


@pytest.mark.parametrize("padding", [-1000, -1024, -2000, -32768])
def test_padding_is_not_counted(padding, brain):
    stored = as_ct(brain) + 1024
    stored[:5] = padding
    shifted = Root(path="x", intensity_offset=-1024)
    fault = check_quality(Volume(stored, brain.affine), None, QUALITY, "CT").fault
    assert fault.endswith("set intensity_offset for this root")
    sound = as_ct(brain)
    sound[:5] = padding
    assert check_quality(Volume(sound, brain.affine), None, QUALITY, "CT") == ScanQuality()
    stored[:5] = padding + 1024
    assert check_quality(Volume(stored, brain.affine), shifted, QUALITY, "CT") == ScanQuality()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda hu: hu * 10, "its values reach down to"),
        (lambda hu: hu * 2, "its values reach down to"),
        (lambda hu: hu - 700, "its values reach down to"),
        (lambda hu: -hu, "or inverted ones"),
    ],
)
def test_values_on_another_scale_are_no_hounsfield_units(change, fault, brain):
    volume = Volume(change(in_air(brain)), brain.affine)
    assert fault in check_quality(volume, None, QUALITY, "CT").fault


def test_few_voxels_of_nan_are_no_background(brain):
    data = brain.data.astype(np.float32)
    data[:, :, 3] = np.nan  # a slice of 25
    assert check_quality(Volume(data, brain.affine), None, QUALITY) == ScanQuality()
    data = brain.data.astype(np.float32)
    data[5, 5, 5] = np.nan
    repair = check_quality(Volume(data, brain.affine), None, QUALITY).repair
    assert repair == "3e-05 of its voxels are NaN, and count as not measured"


def test_an_mr_with_the_values_of_ct_is_noted(brain):
    ct = Volume(in_air(brain), brain.affine)
    assert "those of CT" in check_quality(ct, None, QUALITY, "MR").note
    assert check_quality(ct, None, QUALITY, "CT").note == ""
    assert check_quality(brain, None, QUALITY, "MR").note == ""


@pytest.mark.parametrize(("intent", "word"), [(1002, "LABEL"), (3, "STATISTIC")])
def test_what_nifti_calls_a_map_is_no_scan(intent, word, brain, tmp_path):
    image = nibabel.Nifti1Image(brain.data, brain.affine)
    image.header["intent_code"] = intent
    nibabel.save(image, tmp_path / "a.nii")
    fault = check_quality(read_volume(Source(tmp_path / "a.nii")), None, QUALITY).fault
    assert fault == f"is a derived object, not a scan: its intent_code says {word}"


def test_a_head_without_the_air_about_it_is_accepted(brain):
    hu = as_ct(brain)
    masked = np.where(hu < -200, -1024, hu)
    assert check_quality(Volume(masked, brain.affine), None, QUALITY, "CT") == ScanQuality()


@pytest.mark.parametrize("angle", [0, 7, 23, 29, 41])
def test_a_limit_is_met_however_the_scan_is_turned(angle, brain):
    edge = Volume(brain.data[:, :, :10], rotated_affine((angle, 0, angle), (3, 3, 2)))
    assert check_quality(edge, None, QUALITY) == ScanQuality()
    thick = Volume(brain.data, rotated_affine((angle, 0, angle), (3, 3, 10)))
    assert check_quality(thick, None, QUALITY) == ScanQuality()
    beyond = Volume(brain.data, rotated_affine((angle, 0, angle), (3, 3, 10.001)))
    fault = check_quality(beyond, None, QUALITY).fault
    assert fault == "voxels of up to 10.001 mm; 10 mm is the limit"


def test_a_volume_too_large_for_memory_is_not_opened():
    fault = size_fault(VoxelGrid((30000, 30000, 30000), np.eye(4)), QualityThresholds())
    assert fault.startswith("says that it has 30000 x 30000 x 30000 voxels, 1.01e+05 GiB in memory")
    assert size_fault(VoxelGrid((512, 512, 1200), np.eye(4)), QualityThresholds()) == ""
