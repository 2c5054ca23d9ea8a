"""Rules that derive subject, site and targets from paths, tables and headers; drawing of splits.

One kind of rule serves them all. A subject's split is drawn by a hash of its name, not by
shuffling, so that adding scans moves nobody from one split to another.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError
from ssl_pipeline.io.text import normalize_word
from ssl_pipeline.volumes import expression


class Rule(Section):
    """How a value is derived for a scan: from a table's column, its path, or its header."""

    column: str | None = Field(None, description="column of the table that holds it")
    header: Literal["PatientID"] | None = Field(
        None, description="attribute of a DICOM header that holds it"
    )
    pattern: str | None = Field(
        None,
        description="regular expression with named groups, searched in the path below the root",
    )
    expression: str | None = Field(
        None, description="sum over the pattern's groups, such as `(id + 1) // 2`"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> "Rule":
        if [self.column, self.pattern, self.header].count(None) != 2:
            raise ValueError("give one of `column`, `pattern` and `header`")
        if self.pattern is not None:
            _check_pattern(self.pattern, self.expression)
        elif self.expression is not None:
            raise ValueError("`expression` needs a `pattern` with named groups")
        return self

    def value(
        self,
        relative_path: str,
        row: Mapping[str, str] | None,
        scan_id: str,
        header: Mapping[str, str] | None = None,
    ) -> str:
        """The value for the scan at `relative_path` (path below its root, with `/`), normalized.

        `row` is the scan's row of the table, if it has one; `scan_id` is its code, for messages;
        `header` has the attributes of its own header, empty where they are absent.
        Raises UserError where the pattern does not match, where the expression fails, and for a
        column that the table does not have.
        """
        if self.header is not None:
            return normalize_word((header or {}).get(self.header, ""))
        if self.column is not None:
            return self._column_value(self.column, row)
        match = re.search(self.pattern or "", relative_path)
        if match is None:
            raise UserError(f"Scan {scan_id}: {self.pattern_mismatch(relative_path)}.")
        groups = {name: text or "" for name, text in match.groupdict().items()}
        if self.expression is None:
            return normalize_word(next(iter(groups.values())))
        return normalize_word(self._evaluate_expression(self.expression, groups, scan_id))

    def pattern_mismatch(self, relative_path: str) -> str:
        """Why the rule's pattern says nothing of this path; empty where it does, or is none."""
        if self.pattern is None or re.search(self.pattern, relative_path):
            return ""
        return (
            f"the pattern `{self.pattern}` does not match its path; change the pattern, or leave"
            " the file out with `exclude`"
        )

    def _column_value(self, column: str, row: Mapping[str, str] | None) -> str:
        if row is None:
            return ""
        if column not in row:
            raise UserError(
                f"data.table has no column `{column}`; its columns are {', '.join(sorted(row))}."
            )
        return row[column]

    def _evaluate_expression(self, text: str, groups: Mapping[str, str], scan_id: str) -> str:
        values = {name: _number(word) for name, word in groups.items()}
        try:
            return str(expression.evaluate(expression.parse(text), values))
        except (TypeError, ZeroDivisionError) as error:
            words = [name for name, value in values.items() if isinstance(value, str)]
            why = f"{', '.join(words)} is no number there" if words else "it divides by zero"
            raise UserError(
                f"Scan {scan_id}: the expression `{text}` cannot be computed; {why}."
            ) from error


def named_groups(pattern: str) -> set[str]:
    """The names of a regular expression's groups. Raises ValueError where it is none."""
    try:
        return set(re.compile(pattern).groupindex)
    except re.error as error:
        raise ValueError(f"`{pattern}` is not a regular expression ({error})") from error


def _check_pattern(pattern: str, text: str | None) -> None:
    groups = named_groups(pattern)
    if text is None and len(groups) != 1:
        raise ValueError(
            f"`{pattern}` needs one named group, such as (?P<id>\\d+), or an `expression` over"
            " several"
        )
    unknown = expression.variable_names(expression.parse(text)) - groups if text else set()
    if unknown:
        raise ValueError(
            f"`{text}` uses {', '.join(sorted(unknown))}, which `{pattern}` does not name;"
            f" its groups are {', '.join(sorted(groups))}"
        )


def _number(word: str) -> int | str:
    return int(word) if re.fullmatch(r"[0-9]+", word) else word


class Fractions(Section):
    """Shares of the subjects that are held out; the rest is for training."""

    val: float = Field(0.15, ge=0, le=1, description="share of subjects for choosing settings")
    test: float = Field(0.2, ge=0, le=1, description="share of subjects for the reported result")

    @model_validator(mode="after")
    def _leaves_training(self) -> "Fractions":
        if self.val + self.test >= 1:
            raise ValueError("val and test together must be less than 1")
        return self


def uniform_draw(name: str, seed: int) -> float:
    """A number from 0 to 1 that depends on a name and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of_draw(draw: float, fractions: Fractions) -> str:
    """The split, "train", "val" or "test", that a uniform draw falls into."""
    if draw < fractions.test:
        return "test"
    return "val" if draw < fractions.test + fractions.val else "train"
