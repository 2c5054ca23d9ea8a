"""A real MR, prepared, and scans for the volume store."""

import nibabel
import numpy as np
import pytest
from nibabel.testing import data_path

from ssl_pipeline.preprocess.config import Mr, Preprocess
from ssl_pipeline.preprocess.prepare import prepare_volume
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.store.volume_store import VolumeStore
from ssl_pipeline.volumes.inventory import Scan
from ssl_pipeline.volumes.volume import Volume

SETTINGS = Preprocess(mr=Mr(spacing_mm=(1.0, 1.0, 1.0)), foreground="all")


@pytest.fixture(scope="session")
def prepared():
    """A volume of several inner chunks a side; a part is missing, so that chunks are all zeros."""
    image = nibabel.load(f"{data_path}/anatomical.nii")
    data = np.asarray(image.dataobj, np.float32)
    data[:, 22:] = np.nan
    data[0, -1, -1] = data.mean(where=np.isfinite(data))
    return prepare_volume(Volume(data, image.affine), "MR", SETTINGS)


@pytest.fixture
def make_scan():
    """Scans that differ in what is given."""

    def make(name, **more):
        fields = {
            "id": name,
            "root": "packaged",
            "subject": f"subject of {name}",
            "modality": "MR",
            "split": "train",
            "targets": {"side": "left"},
            "labels": {"organ": False},
            "quality": "accepted",
            "format": "NIfTI",
            "shape": (33, 41, 25),
            "sha256": f"hash of {name}",
        }
        return Scan(**fields | more)

    return make


@pytest.fixture
def volume_store(tmp_path):
    """An empty volume store."""
    return VolumeStore(tmp_path / "volumes", SETTINGS, StoreSettings())
