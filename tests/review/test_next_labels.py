"""Strategies on scans whose clusters, strata and entropies are known."""

import numpy as np
import pytest

from ssl_pipeline.review.next_labels import TITLES, LabelPool, strategy_named
from ssl_pipeline.views.rng import generator

CENTRES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
SIZES = (12, 6, 3)


def pool_of(features, labelled=(), strata=None, entropy=None):
    """A pool of scans with these embeddings."""
    is_labelled = np.zeros(len(features), bool)
    is_labelled[list(labelled)] = True
    return LabelPool(
        strata or ["one"] * len(features),
        is_labelled,
        lambda rows: np.asarray(features, float)[rows],
        lambda rows: np.asarray(entropy, float)[rows],
    )


def choose(name, pool, count, seed=0):
    return strategy_named(name).choose(pool, count, generator(seed, 0, "test")).tolist()


@pytest.fixture
def clusters():
    """Embeddings of three clusters, the middle of each first, and the cluster of each."""
    rng = generator(0, 0, "clusters")
    spread = [rng.normal(scale=0.5, size=(size, 2)) for size in SIZES]
    rows = [centre + own - own.mean(axis=0) for centre, own in zip(CENTRES, spread, strict=True)]
    return np.concatenate(rows), np.repeat(np.arange(len(SIZES)), SIZES)


@pytest.mark.parametrize("name", TITLES)
def test_the_same_seed_chooses_the_same_scans_without_a_label(name, clusters):
    features, _ = clusters
    pool = pool_of(features, labelled=(0, 15), entropy=np.arange(len(features)))
    chosen = choose(name, pool, 5)
    assert chosen == choose(name, pool, 5)
    assert len(set(chosen)) == 5 and not {0, 15} & set(chosen)
    assert sorted(choose(name, pool, 19)) == pool.unlabelled.tolist(), "all that there are"


def test_random_scans_are_in_proportion_to_strata_and_each_as_likely():
    strata = ["a"] * 40 + ["b"] * 10
    counts = np.zeros(50)
    for seed in range(300):
        chosen = choose("random", pool_of(np.zeros((50, 1)), strata=strata), 10, seed)
        assert sum(strata[row] == "b" for row in chosen) in (1, 2, 3)
        counts[chosen] += 1
    shares = counts / 300
    assert abs(shares[:40].mean() - 0.2) < 0.01 and abs(shares[40:].mean() - 0.2) < 0.03
    assert shares.min() > 0.1 and shares.max() < 0.3


def test_typical_scans_are_the_middles_of_clusters_the_largest_first(clusters):
    features, cluster = clusters
    chosen = choose("typical", pool_of(features), 3)
    assert cluster[chosen].tolist() == [0, 1, 2]
    for row in chosen:
        own = np.flatnonzero(cluster == cluster[row])
        distance = np.linalg.norm(features[own] - CENTRES[cluster[row]], axis=1)
        assert own[distance.argmin()] == row


def test_typical_scans_leave_out_clusters_that_have_a_label(clusters):
    features, cluster = clusters
    labelled = (int(np.flatnonzero(cluster == 0)[0]),)
    assert set(cluster[choose("typical", pool_of(features, labelled), 2)]) == {1, 2}


def test_coverage_takes_the_farthest_from_all_labels():
    features = [[0.0], [1.0], [5.0], [9.0], [10.0]]
    assert choose("coverage", pool_of(features, labelled=(0,)), 3) == [4, 2, 1]
    assert choose("coverage", pool_of(features), 1) == [2], "the middle one, without a label"


def test_coverage_takes_each_scan_once_also_where_embeddings_agree():
    assert sorted(choose("coverage", pool_of(np.ones((5, 2)), labelled=(0,)), 4)) == [1, 2, 3, 4]


@pytest.mark.parametrize(("labels", "share"), [(0, 0.5), (8, 0.75), (400, 1.0)])
def test_noise_falls_as_labels_come(labels, share):
    entropy = [3.0, 1.0, *[9.0] * labels]
    pool = pool_of(np.zeros((2 + labels, 1)), labelled=range(2, 2 + labels), entropy=entropy)
    first = [choose("noisy_entropy", pool, 1, seed) for seed in range(1000)]
    assert first.count([0]) / 1000 == pytest.approx(share, abs=0.07)  # five deviations at most


def test_uncertain_scans_with_noise_are_in_proportion_to_strata():
    strata, entropy = ["a"] * 8 + ["b"] * 4, [1.0] * 8 + [99.0] * 4
    chosen = choose("noisy_entropy", pool_of(np.zeros((12, 1)), (), strata, entropy), 6)
    assert sum(row >= 8 for row in chosen) == 2


def test_entropy_takes_the_least_certain():
    pool = pool_of(np.zeros((4, 1)), labelled=(2,), entropy=[0.1, 0.3, 0.9, 0.2])
    assert choose("entropy", pool, 2) == [1, 3]
