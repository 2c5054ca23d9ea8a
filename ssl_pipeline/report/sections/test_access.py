"""When the test subjects of a task were looked at, in a sentence."""

from pathlib import Path

from ssl_pipeline.evaluation.runner.access_log import ACCESS_LOG, read_test_accesses
from ssl_pipeline.formatting import format_count


def describe_test_access(study_folder: Path, task: str) -> str:
    """Of all judgements below a study's folder; empty where no test subject was scored."""
    folders = sorted(path.parent for path in study_folder.glob(f"*/{task}/{ACCESS_LOG}"))
    looks = {
        folder: [x for x in read_test_accesses(folder) if x["split"] == "test"]
        for folder in folders
    }
    times = sorted(look["first"] for own in looks.values() for look in own)
    if not times:
        return ""
    first, last = (time[:16].replace("T", " ") for time in (times[0], times[-1]))
    changed = sum(max(0, len(own) - 1) for own in looks.values())
    if not changed:
        return (
            f"The test subjects were first scored at {first} UTC; of what scored them nothing has "
            "changed since."
        )
    return (
        f"The test subjects were first scored at {first} UTC, and again after "
        f"{format_count(changed, 'change')} of what scores them (dials, encoders, labels, scans), last at "
        f"{last}: figures of what was chosen after a look at them flatter."
    )
