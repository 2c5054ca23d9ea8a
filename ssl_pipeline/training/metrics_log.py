"""The metrics log of a run: lines of JSON, and TensorBoard events made from them.

The JSONL file is authoritative. On resume it is cut back to the checkpoint's step and the events
are written again from it, so neither ever shows a step twice.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter

from ssl_pipeline.io import lease
from ssl_pipeline.io.atomic import write_text

METRICS_FILE = "metrics.jsonl"
FORMAT_VERSION = 1  # of a row
LogRow = dict[str, float | int]  # a step and its numbers
ROW = TypeAdapter(LogRow)


class MetricsLog:
    """Appends to `metrics.jsonl` and to `tensorboard/` in a run's folder; `rows` are all so far."""

    def __init__(self, folder: Path, step: int) -> None:
        """Continue after `step`: what was logged beyond it is dropped."""
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / METRICS_FILE
        self.rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        write_text(self.path, "".join(map(_to_line, self.rows)))
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.events = SummaryWriter(str(folder / "tensorboard"))
        for row in self.rows:
            self._to_events(row)

    def write_row(self, row: LogRow) -> None:
        """Log one row; it must have a `step`. LeaseLostError where a newer attempt writes here."""
        lease.check()
        with open(self.path, "a") as file:
            file.write(_to_line(row))
        self.rows.append(row)
        self._to_events(row)

    def _to_events(self, row: LogRow) -> None:
        for name, value in row.items():
            if name != "step":
                self.events.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Flush the events."""
        self.events.close()


def read_metrics(path: Path) -> list[LogRow]:
    """All whole rows of a metrics log.

    A line that is cut short, damaged, or of another format version is left out.
    """
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with suppress(ValueError):  # no JSON, no text, or no row
            row = ROW.validate_python(json.loads(line), strict=True)
            if row.pop("format", FORMAT_VERSION) == FORMAT_VERSION and "step" in row:
                rows.append(row)
    return rows


def _to_line(row: LogRow) -> str:
    return json.dumps({"format": FORMAT_VERSION, **row}) + "\n"
