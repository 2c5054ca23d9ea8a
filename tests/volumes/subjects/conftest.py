"""People whose scans show different parts of one real head, and copies of them."""

from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from tests.volumes.volume_writers import FOUR_AXES, save_nifti

DIFFERENT = [
    (30, 6),
    (64, 6),
    (30, 40),
    (64, 40),
]  # corners of parts of one head that share nothing


@pytest.fixture
def people(tmp_path):
    """Four scans that show different things, each under a name of its own; `add` copies one."""
    whole = nibabel.load(FOUR_AXES)
    parts = [np.asarray(whole.dataobj)[x : x + 34, y : y + 34, :, 0] for x, y in DIFFERENT]
    for number, part in enumerate(parts):
        save_nifti(tmp_path / "raw" / f"p_{number}" / "scan.nii.gz", part, whole.affine)

    def add(name, number, file="scan.nii"):
        """A copy of a part: mirrored, noisy, in another window, and as another format has it."""
        part = parts[number][::-1].astype(float) + np.random.default_rng(0).normal(
            0, 10, (34, 34, 24)
        )
        window = np.clip(part, *np.percentile(part, (5, 98))).astype("f4")
        return save_nifti(tmp_path / "raw" / name / file, window, whole.affine)

    return SimpleNamespace(folder=tmp_path, parts=parts, affine=whole.affine, add=add)
