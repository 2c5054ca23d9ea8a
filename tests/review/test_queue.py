"""The queue: what is asked, of whom, in an order that tells no reason."""

from collections import Counter
from dataclasses import replace

import pytest

from ssl_pipeline.review.config import Review
from ssl_pipeline.review.queue import awaiting, build_queue, open_items
from ssl_pipeline.review.verdicts import standing_answers
from ssl_pipeline.volumes.inventory import Scan
from ssl_pipeline.volumes.pseudonyms import coder
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


def test_nothing_is_asked_of_a_study_that_wants_nothing():
    shares = dict.fromkeys(("accepted_share", "planted_share", "repeated_share"), 0)
    assert build_queue(ALL, Review(verdicts=(), copies=False, **shares), CODE) == ()


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
