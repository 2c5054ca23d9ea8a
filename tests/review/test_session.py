"""A reader's session, on items of every kind, without a server."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from ssl_pipeline.review.neighbours import Neighbour
from ssl_pipeline.review.pictures import LABELS, PREDICTION, ReviewVolume
from ssl_pipeline.review.queue import ReviewItem
from ssl_pipeline.review.session import (
    MAX_VOLUMES,
    ChangedScanError,
    ReviewSession,
    VolumeSource,
)
from ssl_pipeline.review.verdicts import decisions_of
from tests.review.conftest import GIVEN
from tests.review.test_queue import CODE

SHA256 = "b" * 64


@dataclass
class Scans:
    """Scans in memory, by code; `opened` has the codes that were read, in order."""

    opened: list[str] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)

    def source(self, code):
        def read():
            self.opened.append(code)
            classes = np.ones((3, 4, 5), np.uint8)
            return ReviewVolume(
                np.arange(60.0).reshape(3, 4, 5),
                (1.0, 2.0, 3.0),
                {"auto": (0.0, 60.0)},
                dict.fromkeys((LABELS, PREDICTION), lambda: classes),
            )

        return VolumeSource(lambda: code not in self.changed, read)


@pytest.fixture
def scans():
    return Scans()


def session_of(log, scans, items, findings=(), **more):
    shown = {each for item in items for each in item.images}
    sources = {each: scans.source(each.scan) for each in shown}
    return ReviewSession(items, log, "anna", 1, CODE, sources, dict(findings), **more)


def item_of(number, origin="accepted"):
    code = CODE(str(number))
    return ReviewItem(code, "usable", (code,), SHA256, origin)


def test_a_suspected_copy_is_shown_beside_its_original_and_parted_by_a_rejection(log, scans):
    pair = (CODE("copy"), CODE("original"))
    item = ReviewItem("-".join(pair), "same_subject", pair, SHA256, "copy")
    session = session_of(log, scans, [item])
    (name,) = session.status()["next"]
    described = session.describe(name)
    assert described["question"] == "same_subject" and scans.opened == list(pair)
    first, second = described["volumes"]
    assert first == second and first["spacing"] == "3 × 2 × 1 mm"
    assert first["slices"] == {"axial": 5, "coronal": 4, "sagittal": 3}
    assert first["steps"] == {"coarse": (1, 1, 1), "full": (1, 1, 1)}
    session.answer(name, GIVEN)
    assert decisions_of(log.read()).distinct_pairs == {frozenset(pair): SHA256}


def test_a_scan_is_read_once_and_a_few_stay_in_memory(log, scans):
    items = [item_of(number) for number in range(MAX_VOLUMES + 1)]
    session = session_of(log, scans, items)
    names = session.status()["next"]
    for name in (*names, *names[1:]):
        session.volume(name, 0)
    assert len(scans.opened) == len(items) == len(set(scans.opened))
    session.volume(names[0], 0)
    assert len(scans.opened) == len(items) + 1


def test_a_scan_that_changed_is_not_shown_and_others_are(log, scans):
    items = [item_of(1), item_of(2)]
    scans.changed.add(items[0].code)
    session = session_of(log, scans, items)
    refused = 0
    for name in session.status()["next"]:
        try:
            session.describe(name)
        except ChangedScanError as error:
            refused += 1
            assert "run the stage inventory again" in str(error)
    assert refused == 1 and scans.opened == [items[1].code]


def test_an_answer_on_a_scan_that_was_purged_meanwhile_is_refused_and_nothing_else_is_lost(
    log, scans
):
    session = session_of(log, scans, [item_of(1), item_of(2)])
    first, second = session.status()["next"]
    session.answer(first, GIVEN)
    session.describe(second)
    scans.changed.update(scans.opened)
    with pytest.raises(ChangedScanError, match="run the stage inventory again"):
        session.answer(second, GIVEN)
    assert len(log.read()) == 1 and session.status()["left"] == 1


def test_neighbours_are_those_of_the_scan_for_planted_items_too(log, scans):
    items = [item_of(1), ReviewItem(CODE("x"), "usable", (CODE("1"),), SHA256, "planted")]
    similar = (Neighbour(0.934, b"jpeg"), Neighbour(0.5, b"other"))
    session = session_of(log, scans, [*items, item_of(2)], neighbours={CODE("1"): similar})
    found = [session.describe(name)["neighbours"] for name in session.status()["next"]]
    assert sorted(found) == [[], [0.93, 0.5], [0.93, 0.5]]


def test_what_quality_control_found_is_said_where_the_study_wants_it_but_of_planted_items(
    log, scans
):
    items = [item_of(1), ReviewItem(CODE("x"), "usable", (CODE("1"),), SHA256, "planted")]
    session = session_of(log, scans, items, {CODE("1"): "Quality control: accepted"})
    said = [session.describe(name)["finding"] for name in session.status()["next"]]
    assert sorted(said) == ["", "Quality control: accepted"]


def test_undo_is_of_the_readers_own_answers_alone(log, scans):
    session = session_of(log, scans, [item_of(1)])
    (name,) = session.status()["next"]
    entry = session.answer(name, GIVEN)
    ben = ReviewSession([item_of(1)], log, "ben", 2, CODE, {}, {})
    assert ben.undo() == "" and len(log.read()) == 1
    assert session.undo() == name and log.read()[-1].item == entry.item
    assert session.status()["left"] == 1


@pytest.mark.parametrize(
    ("question", "asked", "untouched"),
    [("label_fits", LABELS, PREDICTION), ("prediction_correct", PREDICTION, LABELS)],
)
def test_of_a_planted_item_the_overlay_that_is_asked_about_is_moved(
    log, scans, question, asked, untouched
):
    item = ReviewItem(CODE("x"), question, (CODE("1"),), SHA256, "planted", label="organ")
    session = session_of(log, scans, [item, item_of(1)])
    drawn = [session.volume(name, 0) for name in session.status()["next"]]
    moved = [volume for volume in drawn if not volume.overlays[asked]()[0].any()]
    assert len(moved) == 1 and moved[0].overlays[untouched]().all()
    assert np.array_equal(drawn[0].data, drawn[1].data), "the scan is as it was"
