"""The queue: what is asked, of whom, in an order that tells no reason."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ssl_pipeline.review.config import Review
from ssl_pipeline.review.predictions import ReviewedPrediction
from ssl_pipeline.review.queue import awaiting, build_queue, open_items
from ssl_pipeline.review.verdicts import standing_answers
from ssl_pipeline.volumes.inventory import Scan
from ssl_pipeline.volumes.pseudonyms import coder
from ssl_pipeline.volumes.review import label_item, pair_sha256, prediction_item
from tests.review.conftest import answer_of

CODE = coder(b"a salt")


def scan(number, **more):
    """A readable scan that was accepted, unless `more` says otherwise."""
    content = CODE("content", str(number)) * 6
    fields = {"format": "NIfTI", "root": "r", "targets": {}, "labels": {}, "quality": "accepted"}
    fields |= {"sha256": content[:64], "voxel_hash": content[:64], "id": CODE(str(number))}
    return Scan(**fields | more)


ACCEPTED = [scan(number) for number in range(40)]
REPAIRED = scan("repaired", quality="repaired", repair="its header was mended")
REJECTED = scan("rejected", quality="rejected", fault="too small", reason="too small")
UNREADABLE = scan("broken", quality="rejected", fault="no image", voxel_hash="")
TWIN = scan("twin", quality="rejected", reason="duplicate of another")
COPY = scan("copy", copy_of=ACCEPTED[0].id)
ALL = [*ACCEPTED, REPAIRED, REJECTED, UNREADABLE, TWIN, COPY]


def answers_on(log, items, reader, **more):
    for item in items:
        fields = {"item": item.code, "question": item.question, "round": item.round}
        log.append(reader, answer_of(content_sha256=item.content_sha256, **fields, **more))


def test_what_a_study_declares_is_asked():
    review = Review(accepted_share=0.1, planted_share=0.2, repeated_share=0.25)
    items = build_queue(ALL, review, CODE)
    count = Counter((item.origin, item.round > 0) for item in items)
    assert (count["rejected", False], count["repaired", False], count["copy", False]) == (1, 1, 1)
    assert (count["accepted", False], count["planted", False]) == (5, 2)
    assert sum(item.round for item in items) == 2
    assert len({item.key for item in items}) == len(items)
    (copy,) = (item for item in items if item.origin == "copy")
    assert copy.scans == (COPY.id, ACCEPTED[0].id) and copy.question == "same_subject"


def test_a_planted_item_has_a_code_that_no_scan_has():
    items = build_queue(ALL, Review(planted_share=1), CODE)
    planted = {item.code for item in items if item.origin == "planted"}
    assert planted and not planted & {each.id for each in ALL}


VISIT = scan("visit", visit_of=ACCEPTED[1].id)


def labelled(number, verdict, **more):
    sha256 = (CODE("label", str(number)) * 6)[:64]
    return scan(number, label_checks={"organ": {"sha256": sha256, "verdict": verdict}}, **more)


LABELLED = [
    *(labelled(number, "fits") for number in range(20)),
    labelled("empty", "empty"),
    labelled("off", "off_grid"),
]
NO_SHARES = dict.fromkeys(("accepted_share", "planted_share", "repeated_share"), 0)


def test_two_names_that_a_visit_joins_are_asked_about_once_and_as_a_copy_if_they_are_one():
    both = scan("both", visit_of=ACCEPTED[2].id, copy_of=ACCEPTED[2].id)
    items = build_queue([*ALL, VISIT, both], Review(verdicts=(), **NO_SHARES), CODE)
    assert Counter(item.origin for item in items) == {"copy": 2, "merged": 1}
    (merged,) = (item for item in items if item.origin == "merged")
    assert merged.scans == (VISIT.id, ACCEPTED[1].id) and merged.question == "same_subject"
    assert merged.content_sha256 == pair_sha256((VISIT.sha256, ACCEPTED[1].sha256))
    without = Review(verdicts=(), merged_subjects=False, copies=False, **NO_SHARES)
    assert build_queue([*ALL, VISIT, both], without, CODE) == ()


def label_items(scans, **settings):
    items = build_queue(scans, Review(verdicts=(), **NO_SHARES | settings), CODE)
    return [item for item in items if item.question == "label_fits"]


def test_labels_in_doubt_are_asked_about_among_some_that_fit_moved_ones_and_repetitions():
    items = label_items(LABELLED, accepted_share=0.25, planted_share=0.3, repeated_share=0.5)
    count = Counter((item.origin, item.round) for item in items if not item.round)
    assert count == {
        ("empty_label", 0): 1, ("off_grid_label", 0): 1, ("fitting_label", 0): 5, ("planted", 0): 3,
    }  # fmt: skip
    assert sum(item.round for item in items) == 4
    planted = [item for item in items if item.origin == "planted"]
    assert all("-" not in item.code and item.label == "organ" for item in planted)
    (empty,) = (item for item in items if item.key[3] == 0 and item.origin == "empty_label")
    assert empty.code == label_item(LABELLED[20].id, "organ", CODE)
    assert label_items(LABELLED, labels=False, accepted_share=1) == []


def test_an_answer_on_a_scan_or_a_label_asks_no_other_labels():
    before = {item.key for item in label_items(LABELLED, accepted_share=0.25)}
    fault = "rejected in review by anna"
    rejected = [replace(each, quality="rejected", fault=fault) for each in LABELLED]
    assert {item.key for item in label_items(rejected, accepted_share=0.25)} == before
    lifted = labelled("lifted", "fits", review="accepted in review by anna")
    after = label_items([*LABELLED, lifted], accepted_share=0.25)
    assert {item.key for item in after} == before


def prediction(number, entropy, **more):
    fields = {"sha256": "c" * 64, "is_empty": False, "file": Path("p.nii.gz")} | more
    return ReviewedPrediction(ACCEPTED[number].id, entropy=entropy, **fields)


def test_predictions_of_which_the_model_is_least_certain_are_asked_about():
    found = [prediction(number, 1 - number / 10, is_empty=number < 3) for number in range(6)]
    settings = {"predictions": {"path": "out", "count": 3}} | dict.fromkeys(
        ("planted_share", "repeated_share"), 1
    )
    review = Review(verdicts=(), **NO_SHARES | settings)
    assert build_queue(ALL, Review(), CODE, found) == build_queue(ALL, Review(), CODE)
    rejected = scan(1, quality="rejected", fault="too small")
    scans = [ACCEPTED[0], rejected, *ACCEPTED[2:]]
    items = build_queue(scans, review, CODE, found)
    items = [item for item in items if item.question == "prediction_correct"]
    first = [item for item in items if item.origin == "prediction" and not item.round]
    assert [item.scans[0] for item in first] == [ACCEPTED[number].id for number in (0, 2, 3)]
    assert first[0].code == prediction_item(ACCEPTED[0].id, "c" * 64, CODE)
    assert first[0].content_sha256 == pair_sha256((ACCEPTED[0].sha256, "c" * 64))
    planted = [item.scans[0] for item in items if item.origin == "planted"]
    assert set(planted) == {ACCEPTED[number].id for number in (3, 4, 5)}, "none without a class"
    assert sum(item.round for item in items) == 3


def test_nothing_is_asked_of_a_study_that_wants_nothing():
    assert build_queue(ALL, Review(verdicts=(), copies=False, **NO_SHARES), CODE) == ()


def test_an_answer_changes_nothing_about_what_is_asked():
    review = Review(accepted_share=0.2)
    before = build_queue(ALL, review, CODE)
    drawn = {item.code for item in before}
    fault = "rejected in review by anna"
    rejected = [
        replace(each, quality="rejected", fault=fault, reason=fault) if each.id in drawn else each
        for each in ACCEPTED
    ]
    lifted = replace(REJECTED, quality="accepted", fault="", review="accepted in review by anna")
    after = build_queue([*rejected, REPAIRED, lifted, TWIN, COPY], review, CODE)
    assert {item.key for item in after} == {item.key for item in before}


def test_a_new_scan_moves_few_of_the_drawn():
    review = Review(accepted_share=0.5, copies=False)
    before = {item.code for item in build_queue(ACCEPTED, review, CODE)}
    after = {item.code for item in build_queue([*ACCEPTED, scan("new")], review, CODE)}
    assert len(before - after) <= 1


def test_the_order_is_each_readers_own_and_repetitions_come_later():
    items = build_queue(ALL, Review(accepted_share=1, repeated_share=1), CODE)
    orders = [open_items(items, (), 1, reader, CODE) for reader in ("anna", "ben")]
    assert orders[0] != orders[1] and set(orders[0]) == set(orders[1]) == set(items)
    for order in orders:
        place = {item.key: at for at, item in enumerate(order)}
        for item in items:
            if item.round:
                assert place[item.key] > place[replace(item, round=0).key]
    origins = [item.origin for item in orders[0]]
    assert origins != sorted(origins) and origins != sorted(origins, reverse=True)


def test_each_item_awaits_as_many_readers_as_the_study_wants(log):
    items = build_queue(ALL, Review(), CODE)
    answers_on(log, items[:2], "anna")
    answers = standing_answers(log.read())
    assert awaiting(items, answers, 1) == list(items[2:])
    assert awaiting(items, answers, 2) == list(items)
    assert set(open_items(items, answers, 2, "anna", CODE)) == set(items[2:])
    assert set(open_items(items, answers, 2, "ben", CODE)) == set(items)
    answers_on(log, items[:1], "anna", answer="withdraw")
    assert awaiting(items, standing_answers(log.read()), 1)[0] == items[0]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match="accepted_share"):
        Review(accepted_share=share)
