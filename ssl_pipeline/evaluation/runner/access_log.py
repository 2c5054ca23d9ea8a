"""When scored subjects were looked at, and with how many settings: what a test split cannot tell.

A test is a test once. Whoever changes a dial after a look chooses by it, so each setting with which
a task was scored is written down when it is first used, and none is taken off but with all
that a study made.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssl_pipeline.io.atomic import read_json, write_json

ACCESS_LOG = "test_access.json"


def record_test_access(out: Path, split: str, key: str) -> None:
    """Write down that a setting with this key scores subjects of `split`, unless it has before."""
    looks = read_test_accesses(out)
    if not any(look["key"] == key for look in looks):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(out / ACCESS_LOG, [*looks, {"key": key, "split": split, "first": now}])


def read_test_accesses(out: Path) -> list[dict[str, Any]]:
    """All looks of a task, the first one first."""
    found: list[dict[str, Any]] = read_json(out / ACCESS_LOG) if (out / ACCESS_LOG).exists() else []
    return found
