"""Agreement of readers: known tables, simulated readers, and the one who always accepts."""

from math import atanh

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from ssl_pipeline.report.sections.readers import reader_tables
from ssl_pipeline.review.agreement import ANSWERS, cohen_kappa, summarise_review, wilson_interval
from ssl_pipeline.review.audit_log import anchor_of
from ssl_pipeline.review.config import Review
from ssl_pipeline.review.queue import build_queue
from ssl_pipeline.review.verdicts import decisions_of, standing_answers
from tests.review.conftest import answer_of
from tests.review.test_queue import ALL, CODE, answers_on

COVERAGE = (0.93, 0.97)


def test_kappa_is_that_of_another_library_with_the_interval_of_the_literature():
    # Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, table 18.1.
    table = [[75, 1, 4], [5, 4, 1], [0, 0, 10]]
    cells = ((a, b, table[i][j]) for i, a in enumerate(ANSWERS) for j, b in enumerate(ANSWERS))
    pairs = [(a, b) for a, b, count in cells for _ in range(count)]
    found = cohen_kappa(pairs)
    expected = cohen_kappa_score([a for a, _ in pairs], [b for _, b in pairs])
    assert found.value == pytest.approx(expected) and found.items == 100
    # Their standard error is 0.087, here of the transformed kappa.
    half = (atanh(found.high) - atanh(found.low)) / 2
    assert half / 1.96 * (1 - found.value**2) == pytest.approx(0.087, abs=0.001)


def kappa_coverage(items, bad, right, rounds):
    """How often the interval holds the truth: two readers who are `right` so often, `bad` items."""
    rng = np.random.default_rng(0)
    agree = right**2 + (1 - right) ** 2
    says_bad = bad * right + (1 - bad) * (1 - right)
    chance = says_bad**2 + (1 - says_bad) ** 2
    truth, held = (agree - chance) / (1 - chance), 0
    for _ in range(rounds):
        is_bad = rng.random(items) < bad
        readers = [is_bad == (rng.random(items) < right) for _ in range(2)]
        words = np.where(readers, "reject", "accept")
        found = cohen_kappa(zip(*words, strict=True))
        held += found.low <= truth <= found.high
    return held / rounds


def test_the_interval_of_kappa_holds_the_truth_as_often_as_it_says():
    for items in (50, 150):
        coverage = kappa_coverage(items, bad=0.4, right=0.9, rounds=1000)
        assert COVERAGE[0] <= coverage <= COVERAGE[1]


def test_kappa_of_readers_who_all_say_the_same_is_not_defined():
    assert cohen_kappa([("accept", "accept")] * 9)[:3] == (None, None, None)
    assert cohen_kappa([]).items == 0


def test_a_share_of_nothing_found_still_has_an_interval():
    assert wilson_interval(0, 10)[:2] == (0.0, 0.0)
    assert wilson_interval(0, 10).high == pytest.approx(0.2775, abs=1e-4)


def test_the_reader_who_always_accepts_is_exposed_by_planted_items(log):
    items = build_queue(ALL, Review(accepted_share=0.5, planted_share=1, repeated_share=0.3), CODE)
    answers_on(log, items, "hasty", answer="accept", codes=())
    for item in items:
        said = "reject" if item.origin in ("planted", "rejected") else "accept"
        answers_on(log, [item], "careful", answer=said)
    entries = log.read()
    summary = summarise_review(items, standing_answers(entries), anchor_of(entries))
    careful, hasty = summary.readers
    assert careful.planted_rejected.value == 1 and hasty.planted_rejected.value == 0
    assert hasty.planted_rejected.high < careful.planted_rejected.low
    assert hasty.accepted.value == 1 and hasty.answers == summary.items == len(items)
    readers, agreement = reader_tables(summary)
    assert readers.rows[1][0] == "hasty" and readers.rows[1][3].startswith("0.00 [0.00, ")
    pairs = [row[0] for row in agreement.rows]
    assert pairs == ["careful and hasty", "careful twice", "hasty twice"]
    pairs = {each.readers: each.kappa for each in summary.agreement}
    assert pairs["careful", "careful"].value in (1.0, None)
    assert pairs["careful", "hasty"].value == 0


def test_of_several_answers_the_last_that_decides_counts(log):
    scan = {"content_sha256": "b" * 64}
    log.append("anna", answer_of(answer="accept", codes=(), **scan))
    log.append("ben", answer_of(answer="reject", codes=("metal", "field_of_view"), **scan))
    log.append("carl", answer_of(answer="unsure", **scan))
    (decision,) = decisions_of(log.read()).scans.values()
    assert decision.outcome == ("reject", "metal, field of view", "ben", "b" * 64)
    log.append("ben", answer_of(answer="withdraw", **scan))
    (decision,) = decisions_of(log.read()).scans.values()
    assert decision.outcome[:3] == ("accept", "", "anna")


def test_two_subjects_are_a_decision_on_a_pair(log):
    pair = {"item": "0123456789ab-ba9876543210", "question": "same_subject"}
    log.append("anna", answer_of(answer="reject", **pair))
    assert decisions_of(log.read()).distinct_pairs == {frozenset(pair["item"].split("-")): "a" * 64}
    log.append("anna", answer_of(answer="accept", **pair))
    assert not decisions_of(log.read()).distinct_pairs


@pytest.mark.parametrize(
    ("question", "decided"), [("label_fits", "labels"), ("prediction_correct", "predictions")]
)
def test_a_decision_on_a_label_or_a_prediction_is_by_its_item(log, question, decided):
    item = "0123456789ab-ba9876543210"
    log.append("anna", answer_of(item=item, question=question))
    decisions = decisions_of(log.read())
    assert getattr(decisions, decided)[item].outcome == ("reject", "motion", "anna", "a" * 64)
    assert not decisions.scans and not decisions.distinct_pairs
