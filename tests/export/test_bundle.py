"""From an encoder to features of a scan that it never saw, and back from the bundle."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.bundle import save_bundle
from ssl_pipeline.models import ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.preprocess.config import Preprocess
from tests.conftest import real_volume, write_scans


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "encoder"
    model = ViT()
    preprocess = Preprocess(foreground="all")
    save_bundle(folder, random_encoder(model, 7), model, preprocess, (16, 16, 16), {"steps": 0})
    return folder


def test_loaded_weights_are_the_saved_ones(bundle):
    loaded, made = load_encoder(bundle), random_encoder(ViT(), 7)
    for name, value in made.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)


def test_features_of_a_new_scan(bundle, tmp_path):
    path = tmp_path / "scan.nii.gz"
    nib.save(real_volume(), path)
    features = load_encoder(bundle).embed(path, modality="MR")
    assert features.vector.shape == (128,)
    assert features.tokens.shape == (len(features.centres_mm), 128)
    assert np.allclose(features.tokens.mean(axis=0), features.vector, atol=1e-5)


def test_tokens_lie_where_the_scan_has_voxels(bundle, tmp_path):
    image = real_volume()
    path = tmp_path / "scan.nii.gz"
    nib.save(image, path)
    centres = load_encoder(bundle).embed(path, modality="MR").centres_mm
    voxels = nib.affines.apply_affine(np.linalg.inv(image.affine), centres)
    assert voxels.min() > -1 and (voxels < np.array(image.shape)).all()
    assert np.allclose(
        np.sort(np.unique(np.round(np.diff(np.unique(voxels[:, 0].round(2))), 1))), 8
    )


def test_the_same_scan_in_another_orientation_has_the_same_features(bundle, tmp_path):
    image = real_volume()
    other = image.as_reoriented(nib.orientations.axcodes2ornt("PSL"))
    nib.save(image, tmp_path / "a.nii.gz")
    nib.save(other, tmp_path / "b.nii.gz")
    encoder = load_encoder(bundle)
    first, second = (encoder.embed(tmp_path / f"{n}.nii.gz", "MR").vector for n in "ab")
    assert np.allclose(first, second, atol=1e-4)


def test_what_cannot_be_embedded_is_told(bundle, tmp_path):
    with pytest.raises(UserError, match="no encoder bundle"):
        load_encoder(tmp_path)
    nib.save(real_volume(), tmp_path / "scan.nii.gz")
    with pytest.raises(UserError, match="does not say its modality"):
        load_encoder(bundle).embed(tmp_path / "scan.nii.gz")
    with pytest.raises(UserError, match="is not there"):
        load_encoder(bundle).embed(tmp_path / "none.nii.gz")


def test_a_whole_folder_becomes_one_table(bundle, tmp_path):
    write_scans(tmp_path / "raw", 2)
    (tmp_path / "raw" / "images" / "broken.nii.gz").write_bytes(b"not a scan")
    words = ["embed", bundle, tmp_path / "raw" / "images", "--modality", "MR"]
    command = [
        sys.executable,
        "-m",
        "stages",
        *map(str, words),
        "--out",
        str(tmp_path / "f.parquet"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "f.parquet").to_pylist()
    assert [len(row["features"]) for row in rows] == [0, 128, 128]
    assert rows[0]["error"] and not rows[1]["error"]
