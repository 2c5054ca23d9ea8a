"""Metrics of frozen features under distribution shift, none of which needs a label.

Out-of-distribution detection of corrupted scans, agreement of the features of a scan clean and
corrupted (intraclass correlation), and the share of the variance between subjects that the scanner,
or another attribute of subgroups, explains.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.metrics.classification import auroc
from ssl_pipeline.evaluation.metrics.scores import MetricValue
from ssl_pipeline.evaluation.probes.knn import unit_rows

NEIGHBOUR_RANK = 10  # of the neighbour whose distance is the out-of-distribution score

FeatureRows = NDArray[np.float32]  # (crops, dim)


def neighbour_distance(train: FeatureRows, test: FeatureRows) -> NDArray[np.float64]:
    """Distance (m,) of unit features to the tenth nearest neighbour in `train`.

    An out-of-distribution score (Sun et al. 2022, arXiv:2204.06507).
    """
    similar = unit_rows(test) @ unit_rows(train).T
    nth = min(NEIGHBOUR_RANK, len(train)) - 1
    cosine = -np.partition(-similar, nth, axis=1)[:, nth]
    distance: NDArray[np.float64] = np.sqrt(np.maximum(2 - 2 * cosine, 0))
    return distance


def ood_auroc(
    clean: NDArray[np.float64],
    corrupted: NDArray[np.float64],
    rows: NDArray[np.int64],
    n_subjects: int,
) -> MetricValue:
    """AUROC of the distances of the same crops, clean against corrupted; .5 is chance.

    `rows` (m,) is the index of the subject of each crop.
    """
    distance = np.concatenate([clean, corrupted])
    is_corrupted = np.repeat([0, 1], [len(clean), len(corrupted)])
    return auroc(
        n_subjects, np.tile(rows, 2), is_corrupted, np.stack([-distance, distance], axis=1)
    )


def feature_icc(
    clean: FeatureRows, corrupted: FeatureRows, rows: NDArray[np.int64], n_subjects: int
) -> MetricValue:
    """Intraclass correlation of crops clean and corrupted, over all features: 1 is no change.

    ICC(1) of Shrout & Fleiss 1979, doi:10.1037/0033-2909.86.2.420, with squares summed over
    features.
    """

    def correlation(is_included: NDArray[np.bool_]) -> float:
        first, second = (
            clean[is_included].astype(np.float64),
            corrupted[is_included].astype(np.float64),
        )
        means = (first + second) / 2
        between = 2 * _squared_deviations(means).sum() / max(len(means) - 1, 1)
        within = ((first - second) ** 2).sum() / 2 / max(len(means), 1)
        return float((between - within) / max(between + within, 1e-12))

    return jackknife(correlation, rows, n_subjects)


def explained_variance(
    features: FeatureRows, rows: NDArray[np.int64], groups: Sequence[str]
) -> MetricValue:
    """Share of the variance of subjects' mean features that their groups explain.

    Adjusted for the number of groups, so that random groups have 0 on average; nan where there is
    one group. `groups` has the group of each subject, `rows` (n,) the subject of each feature.
    """
    subjects = len(groups)
    number = np.bincount(rows, minlength=subjects)
    total = np.zeros((subjects, features.shape[1]))
    np.add.at(total, rows, features)
    mean, of = total / np.maximum(number, 1)[:, None], np.unique(groups, return_inverse=True)[1]

    def explained(is_included: NDArray[np.bool_]) -> float:
        known = is_included & (number > 0)
        own, where = mean[known], of[known]
        kinds = np.unique(where)
        free = len(own) - len(kinds)
        if len(kinds) < 2 or free < 1:
            return float("nan")
        within = sum(_squared_deviations(own[where == kind]).sum() for kind in kinds) / free
        return 1 - float(within / max(_squared_deviations(own).sum() / (len(own) - 1), 1e-12))

    return jackknife(explained, np.arange(subjects), subjects)


def jackknife(
    value_of: Callable[[NDArray[np.bool_]], float], rows: NDArray[np.int64], n_subjects: int
) -> MetricValue:
    """A metric of some rows, with jackknife pseudo-values by subject; see `metrics.scores`."""
    without = np.array([value_of(rows != subject) for subject in range(n_subjects)])
    return MetricValue.from_jackknife(value_of(np.ones(len(rows), bool)), without)


def _squared_deviations(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = (rows - rows.mean(axis=0)) ** 2
    return squares
