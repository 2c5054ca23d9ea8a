"""Answers of readers, and logs of them."""

import pytest

from ssl_pipeline.review.audit_log import AuditLog
from ssl_pipeline.review.log_entry import ReaderAnswer

ANSWER = ReaderAnswer.model_validate(
    {
        "item": "0123456789ab",
        "content_sha256": "a" * 64,
        "question": "usable",
        "round": 0,
        "answer": "reject",
        "codes": ("motion",),
        "dwell_s": 2.5,
        "view": {"slices": (3, 4, 5), "window": "auto", "overlay": False},
    }
)


def answer_of(**changes):
    """An answer that differs from ANSWER in these fields."""
    return ReaderAnswer.model_validate(ANSWER.model_dump() | changes)


@pytest.fixture
def log(tmp_path):
    """An empty log."""
    return AuditLog(tmp_path)
