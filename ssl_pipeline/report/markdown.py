"""Tables as Markdown: to be read, sent and committed as they are."""

from collections.abc import Iterable

from ssl_pipeline.report.tables import Badge, Table

DECIDED = ("better", "worse")


def markdown(table: Table) -> str:
    """A table below its caption; a difference whose interval does not hold zero is in bold."""
    marks = ["---"] * table.words + ["---:"] * (len(table.head) - table.words)
    rows = (map(_cell, row) for row in table.rows)
    return "\n".join([table.caption, "", *map(_line, (table.head, marks, *rows))])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _cell(cell: str | Badge) -> str:
    if isinstance(cell, str):
        return cell
    if cell.word in DECIDED:
        return f"**{cell.text}**"
    return f"{cell.text} {cell.word}" if cell.word == "failed" else cell.text
