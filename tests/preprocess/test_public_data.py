"""Public data where they are present: a CT whose outside was not stored, and crops of an organ."""

import os
from pathlib import Path

import numpy as np
import pytest

from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.labels import label_on_grid, label_on_source_grid
from ssl_pipeline.preprocess.prepare import VALID, prepare_volume
from ssl_pipeline.volumes.label_matching import IGNORE_LABEL
from ssl_pipeline.volumes.readers import Source, read_volume

FOLDER = os.environ.get("SSL_PIPELINE_DATA")


@pytest.mark.skipif(FOLDER is None, reason="SSL_PIPELINE_DATA names no folder of public data")
def test_what_was_not_stored_is_invalid_and_the_rest_is_exact():
    images = Path(FOLDER) / "openkbp" / "images"
    image = min(images.iterdir())
    scan = read_volume(Source(image))
    prepared = prepare_volume(scan, "CT", Preprocess(), intensity_offset=-1024.0, missing_value=0.0)
    raw = label_on_grid(scan, prepared.meta)  # its voxels are whole numbers from 0 as well
    hu, valid = prepared.data[0], prepared.data[1] & VALID > 0
    assert valid.any()
    assert not np.any(raw[valid] == 0)
    assert np.array_equal(hu[valid], np.clip(raw[valid].astype(int) - 1024, -1024, 3071))
    label = read_volume(Source(images.parent / "labels" / image.name))
    assert not np.any(label_on_grid(label, prepared.meta) == IGNORE_LABEL)
    assert np.array_equal(label_on_source_grid(label, prepared.meta), label.data)


@pytest.mark.skipif(FOLDER is None, reason="SSL_PIPELINE_DATA names no folder of public data")
@pytest.mark.parametrize("number", ["001", "118", "217"])
def test_a_crop_inside_the_head_is_kept_whole(number):
    image = Path(FOLDER) / "hippocampus" / "images" / f"hippocampus_{number}.nii.gz"
    scan = read_volume(Source(image))
    prepared = prepare_volume(scan, "MR", Preprocess())
    assert prepared.meta.shape == scan.data.shape[::-1]
    assert prepared.meta.foreground_share == 1
