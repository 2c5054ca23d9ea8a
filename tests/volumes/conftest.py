"""Real volumes, small ones from installed packages and large ones that a user may have."""

import os
from pathlib import Path

import pytest

from ssl_pipeline.volumes.readers import Source, read_volume
from ssl_pipeline.volumes.volume import Volume
from tests.volumes.inventory_helpers import with_noise
from tests.volumes.volume_writers import ANATOMICAL, save_nifti


@pytest.fixture(scope="session")
def brain() -> Volume:
    """A real, small MR of a head, 33x41x25 at 2 mm."""
    return read_volume(Source(ANATOMICAL))


@pytest.fixture(scope="session")
def public_data() -> Path:
    folder = os.environ.get("SSL_PIPELINE_DATA")
    if not folder:
        pytest.skip("SSL_PIPELINE_DATA is unset: it names the folder of public volumes.")
    return Path(folder)


@pytest.fixture
def folder(brain, tmp_path):
    """Six scans of three subjects."""
    for number in range(1, 7):
        save_nifti(
            tmp_path / "raw" / f"s_{number:02}.nii.gz", with_noise(brain, number), brain.affine
        )
    return tmp_path
