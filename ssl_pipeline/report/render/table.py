"""A table as the report shows it, in HTML or Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Badge:
    """A cell whose text is followed by a coloured label."""

    text: str
    label: str
    tone: str


@dataclass(frozen=True)
class Table:
    """Caption, head and rows; the first `text_columns` are text, the others numbers."""

    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str | Badge, ...]]
    text_columns: int = 1
    can_wrap: bool = False  # whether a cell may break into lines
