"""Rows of the evidence on encoders that go on learning, in one file for all of its parts."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ssl_pipeline.io.atomic import write_json

ROWS = Path("build/bench/continual.json")


@dataclass(frozen=True)
class GoalRow:
    """A measure with its goal; `met` is None where there is none."""

    measure: str
    ours: str
    goal: str = ""
    met: bool | None = None


def write_rows(part: str, rows: Sequence[GoalRow]) -> None:
    """Print the rows of a part, and put them in place of its earlier ones."""
    found = json.loads(ROWS.read_text()) if ROWS.exists() else []
    others = [row for row in found if row["part"] != part]
    write_json(ROWS, [*others, *({"part": part, **asdict(row)} for row in rows)])
    for row in rows:
        outcome = "" if row.met is None else "met" if row.met else "missed"
        print(f"{row.measure}: {row.ours}  {row.goal}  {outcome}", flush=True)
    print(f"The rows of all parts are in {ROWS}.")
