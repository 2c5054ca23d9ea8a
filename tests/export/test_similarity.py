"""Which scans are unlike those of training, by planted features."""

import numpy as np

from ssl_pipeline.export.task_model.similarity import MIN_SCANS, distance, unlike_distance


def planted(n, direction, rng):
    """Features of n scans about a direction, as training scans of one kind have them."""
    return (direction + 0.1 * rng.normal(size=(n, 8))).astype(np.float32)


def test_a_scan_of_another_kind_is_farther_than_the_training_scans_are_from_each_other():
    rng, (head, pelvis) = np.random.default_rng(0), np.eye(8)[:2]
    training = planted(60, head, rng)
    limit = unlike_distance(training)
    near, far = (
        [distance(training, row) for row in planted(100, direction, rng)]
        for direction in (head, pelvis)
    )
    assert np.mean(near > np.float64(limit)) < 0.15, "of 5 % or so"
    assert min(far) > 2 * limit


def test_of_few_training_scans_no_distance_is_unlike():
    features = planted(MIN_SCANS, np.eye(8)[0], np.random.default_rng(0))
    assert unlike_distance(features[1:]) is None and unlike_distance(features) > 0
