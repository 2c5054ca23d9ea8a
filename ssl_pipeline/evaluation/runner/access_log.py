"""Log of test-set accesses: which configurations a task was scored with, and since when.

A test set is unbiased once. Whoever changes a setting after an access selects by the test set, so
each configuration with which a task was scored is logged when it is first used, and no entry is
removed but with all outputs of a study.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ssl_pipeline.io.records import Record, RecordPart, read_record, write_record

ACCESS_LOG = "test_access.json"


class TestAccess(RecordPart):
    """The first use of one configuration to score subjects of a split."""

    __test__ = False  # no class of tests
    key: str  # hash of everything that determines the scores
    split: str
    first: str  # UTC, ISO 8601


class AccessLog(Record):
    """All test-set accesses of a task, the first one first."""

    format: Literal[1] = 1
    accesses: tuple[TestAccess, ...]


def record_test_access(out: Path, split: str, key: str) -> None:
    """Log that the configuration with this key scores subjects of `split`, if it is new."""
    accesses = read_test_accesses(out)
    if not any(access.key == key for access in accesses):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        new = TestAccess(key=key, split=split, first=now)
        write_record(out / ACCESS_LOG, AccessLog(accesses=(*accesses, new)))


def read_test_accesses(out: Path) -> tuple[TestAccess, ...]:
    """All test-set accesses of a task, the first one first."""
    path = out / ACCESS_LOG
    if not path.exists():
        return ()
    return read_record(AccessLog, path, "delete it only with all outputs of the study").accesses
