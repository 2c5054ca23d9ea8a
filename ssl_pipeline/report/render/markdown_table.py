"""Tables as Markdown."""

from collections.abc import Iterable

from ssl_pipeline.formatting import markdown_line
from ssl_pipeline.report.render.table import Badge, Table

SIGNIFICANT_OUTCOMES = ("better", "worse")


def markdown_table(table: Table) -> str:
    """A table below its caption; a difference whose interval does not hold zero is in bold."""
    marks = ["---"] * table.text_columns + ["---:"] * (len(table.head) - table.text_columns)
    rows = (map(_cell, row) for row in table.rows)
    lines = map(_table_line, (table.head, marks, *rows))
    return "\n".join([markdown_line(table.caption), "", *lines])


def _table_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(markdown_line, cells))} |"


def _cell(cell: str | Badge) -> str:
    if isinstance(cell, str):
        return cell
    if cell.label in SIGNIFICANT_OUTCOMES:
        return f"**{cell.text}**"
    return f"{cell.text} {cell.label}" if cell.label == "failed" else cell.text
