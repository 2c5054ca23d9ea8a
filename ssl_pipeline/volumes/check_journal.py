"""The checks of scans as they come, in one file: an inventory that is killed goes on from them.

A JSON object a line, appended by the threads that inspect. A line that was torn by the kill, or is
of another version, counts as missing; whether a check still holds is seen when it is used.
"""

from pathlib import Path
from threading import Lock

import numpy as np
from pydantic import ConfigDict, ValidationError

from ssl_pipeline.io.records import RecordPart
from ssl_pipeline.volumes.duplicates.keypoints import KEYPOINT_DTYPE, Keypoints
from ssl_pipeline.volumes.scan_check import ScanCheck, ScanInfo

JOURNAL_FILE = "checks.jsonl"


class _Line(RecordPart):
    """One scan's check."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    id: str
    info: ScanInfo
    thumbnail: bytes
    points: bytes | None = None
    extent_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


class CheckJournal:
    """The checks of an inventory that is not complete, by the scan's id."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()

    def read(self) -> dict[str, ScanCheck]:
        """Every check that can be read; of several of one scan the last."""
        if not self._path.exists():
            return {}
        found = {}
        with open(self._path, "rb") as file:
            for text in file:
                try:
                    line = _Line.model_validate_json(text)
                except ValidationError:  # torn, or empty
                    continue
                found[line.id] = _check_of(line)
        return found

    def append(self, scan_id: str, check: ScanCheck) -> None:
        """Add the check of one scan."""
        points = check.keypoints
        line = _Line(
            id=scan_id,
            info=check.info,
            thumbnail=check.thumbnail,
            points=points.points.tobytes() if points else None,
            extent_mm=points.extent_mm if points else (0.0, 0.0, 0.0),
        )
        # A line begins with its break, so that it is whole also behind one that was torn.
        content = b"\n" + line.model_dump_json().encode()
        with self._lock, open(self._path, "ab") as file:
            file.write(content)

    def remove(self) -> None:
        """Remove the file: the inventory has all that is in it."""
        self._path.unlink(missing_ok=True)


def _check_of(line: _Line) -> ScanCheck:
    keypoints = None
    if line.points is not None:
        keypoints = Keypoints(np.frombuffer(line.points, KEYPOINT_DTYPE), line.extent_mm)
    return ScanCheck(line.info, line.thumbnail, keypoints)
