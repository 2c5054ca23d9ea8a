"""Review decisions: scans that a person accepted or rejected, beside automatic quality control.

The record is a text file that is only appended to: one JSON object a line, with the keys of
`Decision`. Of several decisions on a scan the last one counts. A rejection holds for any scan; an
acceptance lifts what a threshold of `quality` rejected, and never a file that cannot be read or
holds no image. Results contain a decision's reason, which must name nobody, and not its reviewer.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from ssl_pipeline.config.loader import parse_section
from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError
from ssl_pipeline.io.text import read_text

FORMAT_VERSION = 1


class Decision(Section):
    """A reviewer's decision on one scan: one line of the record."""

    format: Literal[1] = Field(description="version of the line's format")
    scan: str = Field(description="the scan's code")
    verdict: Literal["accept", "reject"] = Field(description="whether the scan is to be used")
    reason: str = Field(min_length=1, description="why, in words that name nobody")
    reviewer: str = Field(min_length=1, description="who decided")
    time: AwareDatetime = Field(description="when, with the time zone")

    @property
    def outcome(self) -> tuple[str, str]:
        """The part that decides what becomes of the scan."""
        return self.verdict, self.reason


def read_decisions(path: Path) -> dict[str, Decision]:
    """The last decision on each scan, by its code.

    Raises UserError, naming the line, for one that is no decision. A last line without a line break
    was torn while it was written, and is refused too.
    """
    if not path.is_file():
        raise UserError(
            f"data.decisions: there is no file {path}; correct the path, or begin with an empty"
            " file."
        )
    lines = read_text(path).split("\n")
    if lines.pop():
        raise UserError(
            f"{path}, line {len(lines) + 1}: the line is torn, for it has no end; complete or"
            " remove it."
        )
    decisions = (_parse_line(path, number, line) for number, line in enumerate(lines, start=1))
    return {decision.scan: decision for decision in decisions}


def check_scans(path: Path, decisions: Mapping[str, Decision], scan_ids: Collection[str]) -> None:
    """Raise UserError where a decision is on a scan that the study does not have."""
    unknown = sorted(decisions.keys() - set(scan_ids))
    if unknown:
        raise UserError(
            f"{path}: no scan of this study is called {unknown[0]}; correct the code, or remove"
            " the line where the scan is gone for good."
        )


def _parse_line(path: Path, number: int, line: str) -> Decision:
    where = Path(f"{path}, line {number}")
    try:
        content = json.loads(line, object_pairs_hook=_unique_keys)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(
            f"{where}: is no JSON object that has each key once; a line is one decision."
        )
    return parse_section(Decision, content, where)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is given twice")
    return content
