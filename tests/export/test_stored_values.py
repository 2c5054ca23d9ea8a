"""Values of new scans mean what those of pretraining meant, and are checked as they were."""

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.stored_values import StoredValues, stored_values_of
from ssl_pipeline.volumes.inventory import Scan
from tests.conftest import real_volume
from tests.export.conftest import save_random_bundle

SHIFTED = StoredValues(modality="CT", intensity_offset=-1024, missing_value=0)


def hounsfield_units():
    """The shape of a real head as a CT: air at -1000 HU, and voxels beyond the field of view."""
    voxels = np.asarray(real_volume().dataobj)[30:64, 6:40].astype(np.int16)
    hu = np.clip(2 * voxels - 1000, -1000, 1000)
    hu[:4] = -1024
    return hu


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shifted") / "encoder"
    return load_encoder(save_random_bundle(folder, stored_values=(SHIFTED,)))


@pytest.fixture
def scan(tmp_path):
    def write(voxels):
        nib.save(nib.Nifti1Image(voxels, real_volume().affine), tmp_path / "scan.nii.gz")
        return tmp_path / "scan.nii.gz"

    return write


def test_offset_and_missing_value_of_pretraining_hold_for_a_new_scan(encoder, scan):
    hu = hounsfield_units()
    expected = encoder.embed(scan(hu), "CT", intensity_offset=0.0, missing_value=-1024.0).vector
    assert np.array_equal(encoder.embed(scan(hu + 1024), "CT").vector, expected)


def test_hounsfield_units_from_elsewhere_are_not_shifted(encoder, scan):
    hu = hounsfield_units()
    plain = encoder.embed(scan(hu), "CT", intensity_offset=0.0).vector
    assert np.array_equal(encoder.embed(scan(hu), "CT").vector, plain)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda hu: hu * 0, "every voxel is NaN or infinite, or 0"),
        (lambda hu: (hu / 1000).astype(np.float32), "no Hounsfield units"),
        (lambda hu: (np.clip((hu + 160) / 400, 0, 1) * 255).astype(np.uint8), "saturated"),
        (lambda hu: hu[:, :, :4], "only 4 voxels along its shortest axis"),
        (lambda hu: np.full(hu.shape, np.nan, np.float32), "every voxel is NaN or infinite"),
    ],
    ids=["zeros", "thousandths", "window", "thin", "nan"],
)
def test_what_quality_control_rejects_is_not_embedded(encoder, scan, spoil, fault):
    with pytest.raises(UserError, match=fault) as said:
        encoder.embed(scan(spoil(hounsfield_units())), "CT")
    assert str(said.value).startswith("scan.nii.gz: ")


def test_where_roots_differ_the_user_names_the_one(tmp_path, scan):
    roots = (
        StoredValues(root="kept", modality="MR"),
        StoredValues(root="masked", modality="MR", missing_value=0.0),
    )
    encoder = load_encoder(save_random_bundle(tmp_path / "encoder", stored_values=roots))
    voxels = np.asarray(real_volume().dataobj)[30:64, 6:40].astype(np.int16) + 1
    voxels[:9] = 0
    path = scan(voxels)
    with pytest.raises(UserError, match=r"kept: .*; masked: .* name the root"):
        encoder.embed(path, "MR")
    kept, masked = (encoder.embed(path, "MR", root=name).vector for name in ("kept", "masked"))
    assert np.array_equal(masked, encoder.embed(path, "MR", missing_value=0.0).vector)
    assert not np.allclose(kept, masked, atol=1e-3)
    with pytest.raises(UserError, match="did you mean masked"):
        encoder.embed(path, "MR", root="mask")
    encoder.embed(scan(voxels[9:]), "MR")  # without such a voxel the two mean the same


def test_no_root_is_named_where_all_were_stored_alike(encoder, scan):
    with pytest.raises(UserError, match="all stored in the same way: name no root"):
        encoder.embed(scan(hounsfield_units()), "CT", root="ct")


def test_the_bundle_names_roots_only_where_they_differ():
    common = {"format": "NIfTI", "quality": "accepted", "targets": {}, "labels": {}}
    shifted = {**common, "modality": "CT", "intensity_offset": -1024.0}
    scans = [
        Scan(id="a", root="one", **shifted),
        Scan(id="b", root="two", **shifted),
        Scan(id="c", root="one", modality="MR", **common),
        Scan(id="d", root="two", modality="MR", missing_value=0.0, **common),
    ]
    assert stored_values_of(scans) == (
        StoredValues(modality="CT", intensity_offset=-1024),
        StoredValues(root="one", modality="MR"),
        StoredValues(root="two", modality="MR", missing_value=0.0),
    )


def test_the_model_card_says_what_stored_values_mean(tmp_path):
    folder = save_random_bundle(tmp_path / "encoder", stored_values=(SHIFTED,))
    card = (folder / "README.md").read_text()
    assert "of the training files: intensity_offset -1024, missing_value 0" in card
