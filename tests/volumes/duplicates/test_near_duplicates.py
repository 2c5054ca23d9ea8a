"""Near duplicates are found however they were changed; different scans are not."""

import nibabel
import numpy as np
import pytest
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ssl_pipeline.volumes import geometry, readers
from ssl_pipeline.volumes.config import Splits
from ssl_pipeline.volumes.duplicates import keypoints
from ssl_pipeline.volumes.duplicates.near_duplicates import find_near_duplicates, similarity
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.volume import Volume
from tests.volumes.volume_writers import FOUR_AXES

THRESHOLD = Splits().duplicate_threshold


def points_of(data, spacing=(2.0, 2.0, 2.0)):
    return keypoints.detect_keypoints(
        Volume(np.asarray(data, np.float32), np.diag([*spacing, 1.0])), None
    )


@pytest.fixture(scope="module")
def head():
    """A real head of 128 x 96 x 24 voxels, of about 2 mm."""
    return np.asarray(nibabel.load(FOUR_AXES).dataobj)[..., 0].astype(np.float32)


CHANGES = {
    "itself": lambda head: (head, (2, 2, 2)),
    "mirrored": lambda head: (head[::-1], (2, 2, 2)),
    "upside down": lambda head: (head[:, ::-1, ::-1], (2, 2, 2)),
    "noisy": lambda head: (head + np.random.default_rng(0).normal(0, 25, head.shape), (2, 2, 2)),
    "windowed": lambda head: (np.clip(head, *np.percentile(head, (5, 95))) // 4, (2, 2, 2)),
    "gamma": lambda head: (np.sqrt(head), (2, 2, 2)),
    "cropped": lambda head: (head[30:100, 20:75, 4:], (2, 2, 2)),
    "coarser": lambda head: (
        ndimage.zoom(head, 0.75, order=1, grid_mode=True, mode="nearest"),
        (8 / 3,) * 3,
    ),
    "thick slices": lambda head: (head.reshape(128, 96, 12, 2).mean(-1), (2, 2, 4)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_like_its_original(change, head):
    data, spacing = CHANGES[change](head)
    match = similarity(points_of(head), points_of(data, spacing))
    assert match.score > THRESHOLD
    assert similarity(points_of(data, spacing), points_of(head)).share == pytest.approx(
        match.share, abs=0.1
    )


def test_parts_that_share_nothing_are_not_alike(head, brain):
    parts = [
        points_of(part) for part in (head[:60, :48], head[64:, :48], head[:60, 48:], head[64:, 48:])
    ]
    assert (
        find_near_duplicates(
            [*parts, keypoints.detect_keypoints(geometry.to_canonical(brain), None)], THRESHOLD
        )
        == []
    )


def test_the_pairs_among_many_are_found(head):
    parts = [
        points_of(part) for part in (head[:60, :48], head[64:, :48], head[:60, 48:], head[64:, 48:])
    ]
    copies = [points_of(head[64:, :48] + 7), points_of(head[4:60, 48:][::-1])]
    assert find_near_duplicates([*parts, *copies], THRESHOLD) == [(1, 4), (2, 5)]


def test_a_crowd_of_copies_is_one_group(head):
    one = points_of(head[:60, :48])
    found = find_near_duplicates([one] * 80, THRESHOLD)
    links = coo_matrix((np.ones(len(found)), np.array(found).T), (80, 80))
    assert connected_components(links, directed=False)[0] == 1


def test_scans_of_one_subject_are_no_pair_and_do_not_crowd_out_a_copy_of_another(head):
    """As the frames of a beating heart, of which one is also under another name."""
    one = head[:60, :48]
    frames = [points_of(one + np.float32(7 * number)) for number in range(14)]
    subjects = ["heart"] * 13 + ["another"]
    found = find_near_duplicates(frames, THRESHOLD, subjects)
    assert found and all(13 in pair for pair in found)
    assert len(find_near_duplicates(frames[:2], THRESHOLD, ["", ""])) == 1


def test_what_has_no_structure_has_no_keypoints_and_is_no_copy():
    flat, ramp = np.full((40, 40, 40), 3.0), np.indices((40, 40, 40))[0]
    points = [points_of(flat), points_of(ramp), points_of(flat[:9, :9, :3]), points_of(flat)]
    assert find_near_duplicates(points, THRESHOLD) == []


@pytest.mark.parametrize(("value", "missing_value"), [(-9999, -9999.0), (np.nan, None)])
def test_missing_values_are_no_structure(value, missing_value, head):
    holed = head.copy()
    holed[40:60, 30:50, 5:15] = value
    volume = Volume(holed, np.diag([2.0, 2, 2, 1]))
    assert (
        similarity(points_of(head), keypoints.detect_keypoints(volume, missing_value)).share > 0.5
    )


def test_keypoints_come_back_as_they_were_kept(head, tmp_path):
    kept = {"b": points_of(head), "a": points_of(np.zeros((9, 9, 9)))}
    keypoints.write(tmp_path / "k.parquet", kept)
    back = keypoints.read(tmp_path / "k.parquet")
    assert list(back) == ["a", "b"]
    for name, each in back.items():
        assert each.points.tobytes() == kept[name].points.tobytes()
        assert each.extent_mm == kept[name].extent_mm
    assert keypoints.read(tmp_path / "absent.parquet") == {}


def test_two_sides_of_different_people_are_not_copies(public_data):
    paths = sorted((public_data / "hippocampus" / "images").glob("*.nii.gz"))[:60]
    points = [
        keypoints.detect_keypoints(geometry.to_canonical(readers.read_volume(Source(path))), None)
        for path in paths
    ]
    assert find_near_duplicates(points, THRESHOLD) == []
