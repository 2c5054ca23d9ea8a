"""What a command has computed of the scans of a folder, so that a run that was stopped goes on."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.io.records import parse_object
from ssl_pipeline.progress import info
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.scan_check import source_sha256

FORMAT_VERSION = 1  # of a line
Result = dict[str, Any]  # of one scan, as JSON


class FinishedScans:
    """Results of scans, one JSON line each, in a file beside `out` that is appended to.

    A result is known by the content of the scan, by all settings that determine it beside that, and
    by where its files are to be: copies of one scan have files of their own.
    """

    def __init__(self, out: Path, determined_by: object) -> None:
        self.path = out.with_name(f"{out.name}.unfinished")
        self._settings = sha256_json(determined_by)
        rows = list(self._read())
        usable = [row for row in rows if self._is_usable(row)]
        self._results = {row["key"]: row["result"] for row in usable}
        if self._results:
            number = format_count(len(self._results), "scan")
            info(f"{number} of an earlier start known, and not computed again.")
        if len(rows) > len(usable):
            info(f"Others in {self.path} are of other settings, and are computed again.")

    @staticmethod
    def key(source: Source, files: str = "") -> str:
        """The key of a scan's result, whose `files` are there, if it has any.

        Raises ReadError or OSError where the scan cannot be read.
        """
        return sha256_json([source.series, source_sha256(source), files])

    def get(self, key: str) -> Result | None:
        """The result with a key; None where it is not computed yet."""
        return self._results.get(key)

    def add(self, key: str, result: Result) -> None:
        """Write down the result with a key."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._results[key] = result
        row = {"format": FORMAT_VERSION, "settings": self._settings, "key": key, "result": result}
        with open(self.path, "a") as file:
            # Blank lines separate: a line that a kill has cut does not spoil the next.
            file.write("\n" + json.dumps(row) + "\n")

    def remove(self) -> None:
        """Remove the file, once its results stand where they belong."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> Iterator[dict[str, Any]]:
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            with suppress(ValueError):  # blank, or cut: its scan is computed again
                yield parse_object(line)

    def _is_usable(self, row: dict[str, Any]) -> bool:
        is_known = row.get("format") == FORMAT_VERSION and row.get("settings") == self._settings
        return is_known and isinstance(row.get("key"), str) and isinstance(row.get("result"), dict)
