"""Losses by domain: what is forgotten, and transfer backward and forward, of known losses."""

import numpy as np
import pytest

from ssl_pipeline.evaluation.statistics.gate import decide
from ssl_pipeline.registry.domain_losses import domain_table, forgetting_criterion
from ssl_pipeline.training.domain_bank import TOTAL, DomainBank, DomainMeasure, Place
from ssl_pipeline.views.config import Views

SUBJECTS = 12


def bank(site):
    places = [Place(volume=str(n % SUBJECTS), subject=n % SUBJECTS, start=(0, 0, n))
              for n in range(2 * SUBJECTS)]  # fmt: skip
    return DomainBank(
        domain={"site": site}, views=Views(), patch_voxels=(8, 8, 8), places=tuple(places)
    )


def measure(site, loss, seed=0):
    """Losses that differ between subjects as in every measure, and at random between places."""
    rng, own = np.random.default_rng(seed), np.random.default_rng(1).uniform(0.5, 1.5, SUBJECTS)
    losses = loss * np.tile(own / own.mean(), 2) * rng.normal(1, 0.01, 2 * SUBJECTS)
    return DomainMeasure(
        bank_sha256=site, losses={TOTAL: tuple(losses)}, retrieval_accuracy=0.5, rankme=3.0
    )


@pytest.mark.parametrize(
    ("rise", "outcome"), [(0.0, "passed"), (0.05, "passed"), (0.1, "undecided"), (0.2, "failed")]
)
def test_a_rise_is_a_share_of_what_each_subject_lost_before(rise, outcome):
    criterion = forgetting_criterion(
        bank("a"), measure("a", 1.0), measure("a", 1.0 + rise, seed=2), 0.1
    )
    (finding,) = decide([criterion], [], 0.95).findings
    assert finding.outcome == outcome
    assert criterion.contrast.mean == pytest.approx(0.1 - rise, abs=0.01)


def test_places_that_one_encoder_lacks_count_for_neither():
    lost = measure("a", 1.0)
    half = lost.model_copy(
        update={"losses": {TOTAL: (None,) * SUBJECTS + lost.losses[TOTAL][SUBJECTS:]}}
    )
    found = forgetting_criterion(bank("a"), lost, half, 0.1).contrast
    assert found.n_subjects == SUBJECTS
    nobody = lost.model_copy(update={"losses": {TOTAL: (None,) * 2 * SUBJECTS}})
    criterion = forgetting_criterion(bank("a"), lost, nobody, 0.1)
    assert criterion.contrast is None and "is stored here any more" in criterion.absence


def test_transfer_is_backward_in_old_domains_and_forward_in_new_ones():
    banks = {site: bank(site) for site in "abc"}
    encoders = {
        "first": {"a": measure("a", 1.0)},
        "second": {"a": measure("a", 1.3), "b": measure("b", 1.0), "c": measure("c", 3.0)},
        "challenger": {site: measure(site, 1.2, seed=3) for site in "abc"},
    }
    table = domain_table(banks, encoders, {"c": measure("c", 3.0)}, {"c": measure("c", 4.0)}, 0.95)
    assert [row.domain for row in table.rows] == ["a", "b", "c"]
    assert [loss and round(loss.mean, 1) for loss in table.rows[0].losses] == [1.0, 1.3, 1.2]
    assert table.rows[1].losses[0] is None
    # Of a since the first, which brought it in, and of b since the second.
    assert table.backward.mean == pytest.approx(0.2, abs=0.02)
    assert table.backward.low < table.backward.mean < table.backward.high
    assert table.forward.mean == pytest.approx(1.0, abs=0.02)
    assert table.forward.low > 0
