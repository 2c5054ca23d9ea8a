"""When the test subjects of a task were looked at, in a sentence."""

from collections.abc import Iterable
from pathlib import Path

from ssl_pipeline.evaluation.looks import read_looks
from ssl_pipeline.report.numerals import count


def looked(folders: Iterable[Path]) -> str:
    """Of all judgements of a task, by their folders; empty where no test subject was scored."""
    looks = {folder: [x for x in read_looks(folder) if x["split"] == "test"] for folder in folders}
    times = sorted(look["first"] for own in looks.values() for look in own)
    if not times:
        return ""
    first, last = (time[:16].replace("T", " ") for time in (times[0], times[-1]))
    changed = sum(max(0, len(own) - 1) for own in looks.values())
    if not changed:
        return f"The test subjects were first scored at {first} UTC; no dial has changed since."
    return (
        f"The test subjects were first scored at {first} UTC, and again after "
        f"{count(changed, 'change')} of dials, last at {last}: figures of dials that were chosen "
        "after a look at them flatter."
    )
