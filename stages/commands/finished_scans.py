"""What a command has computed of the scans of a folder, so that a run that was stopped goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.progress import info
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.scan_check import source_sha256

Result = dict[str, Any]  # of one scan, as JSON


class FinishedScans:
    """Results of scans, one JSON line each, in a file beside `out` that is appended to.

    A result is known by the content of the scan, by all that determines it beside that, and by
    where its files are to be: copies of one scan have files of their own.
    """

    def __init__(self, out: Path, determined_by: object) -> None:
        self.path = out.with_name(f"{out.name}.unfinished")
        self._determined_by = sha256_json(determined_by)
        self._results = dict(self._read())
        if self._results:
            info(f"{len(self._results)} scans of an earlier start are not computed again.")

    def key(self, source: Source, files: str = "") -> str:
        """The key of a scan's result, whose `files` are there, if it has any.

        Raises ReadError or OSError where the scan cannot be read.
        """
        return sha256_json([self._determined_by, source.series, source_sha256(source), files])

    def get(self, key: str) -> Result | None:
        """The result with a key; None where it is not computed yet."""
        return self._results.get(key)

    def add(self, key: str, result: Result) -> None:
        """Write down the result with a key."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._results[key] = result
        with open(self.path, "a") as file:
            # Blank lines separate: a line that a kill has cut does not spoil the next.
            file.write("\n" + json.dumps({"key": key, "result": result}) + "\n")

    def remove(self) -> None:
        """Remove the file, once its results stand where they belong."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> Iterator[tuple[str, Result]]:
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            try:
                row = json.loads(line)
                yield row["key"], row["result"]
            except (ValueError, KeyError, TypeError):
                continue  # blank, or cut: its scan is computed again
