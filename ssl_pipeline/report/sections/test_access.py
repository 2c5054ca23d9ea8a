"""When the test subjects of a task were scored, and how often settings changed in between."""

from pathlib import Path

from ssl_pipeline.evaluation.runner.access_log import ACCESS_LOG, read_test_accesses
from ssl_pipeline.formatting import format_count


def describe_test_access(study_folder: Path, task: str) -> str:
    """One sentence about all evaluations of a task; empty where no test subject was scored."""
    folders = sorted(path.parent for path in study_folder.glob(f"*/{task}/{ACCESS_LOG}"))
    accesses = {
        folder: [x for x in read_test_accesses(folder) if x["split"] == "test"]
        for folder in folders
    }
    times = sorted(row["first"] for rows in accesses.values() for row in rows)
    if not times:
        return ""
    first, last = (time[:16].replace("T", " ") for time in (times[0], times[-1]))
    changed = sum(max(0, len(rows) - 1) for rows in accesses.values())
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
