"""When the test subjects of a task were scored, and how often settings changed in between."""

from collections.abc import Sequence

from ssl_pipeline.evaluation.runner.access_log import TestAccess
from ssl_pipeline.formatting import format_count


def describe_test_access(accesses_by_stage: Sequence[Sequence[TestAccess]]) -> str:
    """One sentence about all evaluations of a task; empty where no test subject was scored."""
    accesses = [[access for access in own if access.split == "test"] for own in accesses_by_stage]
    times = sorted(access.first for own in accesses for access in own)
    if not times:
        return ""
    first, last = (time[:16].replace("T", " ") for time in (times[0], times[-1]))
    changed = sum(max(0, len(own) - 1) for own in accesses)
    if not changed:
        return (
            f"The test subjects were first scored at {first} UTC; nothing has changed since in "
            "what scores them."
        )
    return (
        f"The test subjects were first scored at {first} UTC, and again after "
        f"{format_count(changed, 'change')} of what scores them (settings, encoders, labels, "
        f"scans), last at {last}: results of settings chosen afterwards are optimistic."
    )
