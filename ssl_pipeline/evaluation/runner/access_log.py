"""Log of test-set accesses: which configurations a task was scored with, and since when.

A test set is unbiased once. Whoever changes a setting after an access selects by the test set, so
each configuration with which a task was scored is logged when it is first used, and no entry is
removed but with all outputs of a study.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssl_pipeline.io.atomic import read_json, write_json

ACCESS_LOG = "test_access.json"


def record_test_access(out: Path, split: str, key: str) -> None:
    """Log that the configuration with this key scores subjects of `split`, if it is new."""
    accesses = read_test_accesses(out)
    if not any(access["key"] == key for access in accesses):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(out / ACCESS_LOG, [*accesses, {"key": key, "split": split, "first": now}])


def read_test_accesses(out: Path) -> list[dict[str, Any]]:
    """All test-set accesses of a task, the first one first."""
    found: list[dict[str, Any]] = read_json(out / ACCESS_LOG) if (out / ACCESS_LOG).exists() else []
    return found
