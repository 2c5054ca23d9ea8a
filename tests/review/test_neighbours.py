"""The list of similar scans: by cosine, nearest first, and never the scan itself."""

import numpy as np
import pytest

from ssl_pipeline.review.neighbours import COUNT, find_neighbours


def test_the_nearest_come_first_and_the_scan_itself_is_none():
    angles = {"a": 0.0, "b": 10.0, "c": 90.0, "d": 180.0}
    embeddings = {
        code: 7 * np.array([np.cos(np.radians(at)), np.sin(np.radians(at))])
        for code, at in angles.items()
    }
    found = find_neighbours(embeddings, {code: code.encode() for code in angles})
    assert [each.thumbnail for each in found["a"]] == [b"b", b"c", b"d"]
    assert [each.similarity for each in found["a"]] == pytest.approx(
        [np.cos(np.radians(10)), 0, -1]
    )


def test_a_few_are_listed_and_those_without_a_picture_are_not():
    rng = np.random.default_rng(0)
    embeddings = {str(number): rng.normal(size=8) for number in range(20)}
    thumbnails = {code: b"jpeg" for code in embeddings if code != "3"}
    found = find_neighbours(embeddings, thumbnails)
    assert set(found) == set(thumbnails) and {len(each) for each in found.values()} == {COUNT}
    assert find_neighbours({}, thumbnails) == {}
