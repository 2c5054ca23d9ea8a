"""Each fault of a volume gives its own sentence; real volumes have none."""

import numpy as np
import pytest

from ssl_pipeline.volumes.dataset import Root
from ssl_pipeline.volumes.verdicts import Quality, judge
from ssl_pipeline.volumes.volume import Volume
from tests.volumes.writing import turned


def changed(brain, how):
    data = brain.data.astype(np.float32)
    how(data)
    return Volume(data, brain.affine)


def test_a_real_volume_is_accepted(brain):
    assert judge(brain, None, Quality()) == ""


def test_not_a_number(brain):
    def spoil(data):
        data[3, 4, 5], data[6, 7, 8] = np.nan, -np.inf

    assert judge(changed(brain, spoil), None, Quality()) == "2 voxels are NaN or infinite"


def test_constant(brain):
    volume = Volume(np.full_like(brain.data, 7), brain.affine)
    assert judge(volume, None, Quality()) == "every voxel has the same value, 7"


def test_a_mask_is_no_image(brain):
    volume = Volume((brain.data > 5000).astype(np.uint8), brain.affine)
    assert "saturated, or a mask" in judge(volume, None, Quality())


def test_saturated(brain):
    clipped = Volume(np.minimum(brain.data, np.quantile(brain.data, 0.8)), brain.affine)
    assert "saturated" in judge(clipped, None, Quality())
    assert judge(clipped, None, Quality(max_saturated_share=0.5)) == ""


def test_missing_values_are_not_judged(brain):
    data = np.full_like(brain.data, 0)
    root = Root(path="x", missing_value=0)
    assert "stands for nothing measured" in judge(Volume(data, brain.affine), root, Quality())
    data[:8] = 5
    assert "same value, 5" in judge(Volume(data, brain.affine), root, Quality())


@pytest.mark.parametrize(
    ("crop", "spacing", "sentence"),
    [
        (np.s_[:, :, :5], (2, 2, 2), "only 5 voxels along its shortest axis; 8 are needed"),
        (np.s_[:, :, :], (0.5, 0.5, 0.5), "only 12.5 mm along its shortest axis; 20 are needed"),
        (np.s_[:, :, :], (1, 1, 12), "voxels of up to 12 mm; 10 mm is the limit"),
    ],
)
def test_sizes(crop, spacing, sentence, brain):
    volume = Volume(brain.data[crop], turned(spacing=spacing))
    assert judge(volume, None, Quality()) == sentence


def test_a_tilted_gantry(brain):
    affine = brain.affine.copy()
    affine[1, 2] = 2 * np.tan(np.radians(14))
    assert "14.0 degrees off a right angle" in judge(Volume(brain.data, affine), None, Quality())
