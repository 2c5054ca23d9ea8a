"""The sign-off of a review: what it states, and that it states no more than it may."""

import re

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.review.audit_log import anchor_of
from stages.commands.review import write_sign_off_page
from stages.reviewed import review_queue
from tests.review.conftest import PERSON, answer_of


def answer_all(page, reader, **changes):
    """A reader's answers on all that the study asks."""
    for item in review_queue(page.study):
        answer = answer_of(
            item=item.code,
            content_sha256=item.content_sha256,
            question=item.question,
            round=item.round,
            **changes,
        )
        page.log.append(reader, answer)


@pytest.fixture
def signed(page, tmp_path):
    """Writes the page, and returns its text."""

    def write():
        write_sign_off_page(page.study, tmp_path / "page.html")
        return (tmp_path / "page.html").read_text()

    return write


def test_it_states_the_log_and_every_decision_against_the_software(page, signed):
    answer_all(page, "anna", answer="reject", codes=("metal",))
    text = signed()
    assert f"--anchor {anchor_of(page.log.read())}" in text and "Not complete" not in text
    items = review_queue(page.study)
    accepted = [item.code for item in items if (item.origin, item.round) == ("accepted", 0)]
    rows = re.findall(r"<tr><td>([0-9a-f]{12})</td>(.*?)</tr>", text)
    assert [code for code, _ in rows] == accepted
    assert all("<td>not used</td><td>metal</td><td>anna</td>" in row for _, row in rows)
    counts = re.search(r"<td>corrupted on purpose</td>(.*?)</tr>", text)[1]
    planted = sum(item.origin == "planted" for item in items)
    assert re.findall(r">(\d+)<", counts) == [str(planted), "0", str(planted), "0"]
    assert ">1.00 [" in text and f"] of {planted}</td>" in text, "all of them were found"
    assert PERSON not in text and not re.search(r"person\d|\.nii|http|<script", text)


def test_decisions_that_agree_with_the_software_are_not_listed(page, signed):
    answer_all(page, "anna", answer="accept")
    assert "None: readers decided as the software did" in signed()


def test_the_last_answer_that_decides_counts(page, signed):
    answer_all(page, "anna", answer="reject")
    answer_all(page, "ben", answer="accept")
    text = signed()
    assert "None: readers decided as the software did" in text
    assert "<td>anna and ben</td>" in text, "their agreement"


def test_it_says_what_is_not_answered_yet(page, signed):
    text = signed()
    assert f"{len(review_queue(page.study))} still await a reader" in text
    assert "Nobody has answered yet" in text


def test_a_log_that_was_changed_is_not_signed_off(page, signed, tmp_path):
    answer_all(page, "anna", answer="reject")
    page.log.path.write_text(page.log.path.read_text().replace("reject", "accept", 1))
    with pytest.raises(UserError, match="not as it was written"):
        signed()
    assert not (tmp_path / "page.html").exists()
