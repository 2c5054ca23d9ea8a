"""Rows of evidence with a goal, in one file for all parts of a benchmark."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ssl_pipeline.io.atomic import write_json

OUT = Path("build/bench")


@dataclass(frozen=True)
class GoalRow:
    """A measure with its goal; `met` is None where there is none."""

    measure: str
    ours: str
    goal: str = ""
    met: bool | None = None


def write_rows(benchmark: str, part: str, rows: Sequence[GoalRow]) -> None:
    """Print the rows of a part, and put them in place of its earlier ones."""
    out = OUT / f"{benchmark}.json"
    found = json.loads(out.read_text()) if out.exists() else []
    others = [row for row in found if row["part"] != part]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, [*others, *({"part": part, **asdict(row)} for row in rows)])
    for row in rows:
        outcome = "" if row.met is None else "met" if row.met else "missed"
        print(f"{row.measure}: {row.ours}  {row.goal}  {outcome}", flush=True)
    print(f"The rows of all parts are in {out}.")


def run_parts(parts: Mapping[str, Callable[[], None]], description: str | None) -> None:
    """Run the parts of a benchmark that the command line names, or all, in their order."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("part", nargs="*", choices=[*parts, []], default=[*parts])
    for part in parser.parse_args().part:
        parts[part]()
