"""Public data where they are present: a CT whose outside was not stored, and crops of an organ."""

import os
from pathlib import Path

import numpy as np
import pytest

from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.labels import label_on_grid, to_source_grid
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
    valid = to_source_grid(prepared.data[1], prepared.meta) & VALID > 0
    hu = to_source_grid(prepared.data[0], prepared.meta)
    assert valid.any()
    assert not np.any(scan.data[valid] == 0)
    assert np.array_equal(hu[valid], np.clip(scan.data[valid].astype(int) - 1024, -1024, 3071))
    label = read_volume(Source(images.parent / "labels" / image.name))
    drawn = label_on_grid(label, prepared.meta)
    assert not np.any(drawn == IGNORE_LABEL)
    back = to_source_grid(drawn, prepared.meta)
    inside = to_source_grid(np.ones_like(drawn), prepared.meta) > 0
    assert np.array_equal(back[inside], label.data[inside])


@pytest.mark.skipif(FOLDER is None, reason="SSL_PIPELINE_DATA names no folder of public data")
@pytest.mark.parametrize("number", ["001", "118", "217"])
def test_a_crop_inside_the_head_is_kept_whole(number):
    image = Path(FOLDER) / "hippocampus" / "images" / f"hippocampus_{number}.nii.gz"
    scan = read_volume(Source(image))
    prepared = prepare_volume(scan, "MR", Preprocess())
    assert prepared.meta.shape == scan.data.shape[::-1]
    assert prepared.meta.foreground_share == 1
