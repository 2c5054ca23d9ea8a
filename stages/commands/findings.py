"""Findings of reports as a table for a study: `ssl-pipeline findings`.

The table has the path of each scan and, of each finding, 1, 0 or nothing. Text of reports goes to
the user's own command where there is one, and nowhere else: no message shows any.
"""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import check_writable, write_csv
from ssl_pipeline.io.text import clean_text
from ssl_pipeline.progress import info
from ssl_pipeline.volumes.config import KNOWN_COLUMNS, resolve_path
from ssl_pipeline.volumes.findings import FindingRules, Lexicon, as_codes, read_lexicon
from ssl_pipeline.volumes.metadata_table import read_cells

Findings = dict[str, bool | None]


def write_findings(
    reports: Path, out: Path, column: str, lexicon: Path | None, command: str | None
) -> None:
    """Write a row for each scan that is there, whose reports are combined.

    Raises UserError for a table, a lexicon or a command that cannot be used.
    """
    check_writable(out)
    rules = read_lexicon(lexicon)
    _check_names(rules)
    rows = _read_reports(reports, column)
    # Not `Path.exists`, which raises an error with the name where it is too long for a file.
    known = [(path, text) for path, text in rows if os.path.exists(path)]  # noqa: PTH110
    texts = [text for _, text in known]
    found = _apply_rules(rules, texts) if command is None else _ask_command(command, texts, rules)
    by_scan: dict[Path, Findings] = {}
    for (path, _), own in zip(known, found, strict=True):
        by_scan[path] = _combine(by_scan.get(path, {}), own)
    folder = out.resolve().parent
    lines = [
        {"path": os.path.relpath(path, folder), **as_codes(own)} for path, own in by_scan.items()
    ]
    write_csv(out, ["path", *rules.findings], lines)
    if missing := len(rows) - len(known):
        info(
            f"findings: {format_count(missing, 'report')} of scans that are not there, which have "
            f"no row: correct `path` in {reports}, which is from its own folder."
        )
    info(f"findings: {format_count(len(lines), 'scan')} in {out}.")


def _check_names(lexicon: Lexicon) -> None:
    """Raise UserError for a finding that a study would take for something else."""
    taken = next((name for name in lexicon.findings if name in (*KNOWN_COLUMNS, "root")), None)
    if taken:
        raise UserError(
            f"findings has the name {taken}, which a table of scans has already: choose another."
        )


def _read_reports(reports: Path, column: str) -> list[tuple[Path, str]]:
    """The scan and the text of every report."""
    if not reports.is_file():
        raise UserError(f"{reports} is not there: give a table with the columns path and {column}.")
    titles, rows = read_cells(reports)
    columns = [clean_text(title) for title in titles]
    for name in ("path", column):
        if columns.count(name) != 1:
            raise UserError(
                f"{reports} needs one column `{name}` in its first line: name it so, or give the "
                "name of the one with the text as --column."
            )
    at, text = columns.index("path"), columns.index(column)
    folder = reports.resolve().parent
    return [
        (_scan_path(row[at].strip(), folder, f"{reports}: row {number}"), row[text])
        for number, row in enumerate(rows, start=1)
    ]


def _scan_path(cell: str, folder: Path, where: str) -> Path:
    """The scan that a cell names. Raises UserError, without the cell, which may be text."""
    if not cell:
        raise UserError(f"{where} has no `path`; give every report its scan.")
    try:
        return resolve_path(cell, folder)
    except UserError:
        raise UserError(
            f"{where} has a `path` with an environment variable or a home that is not known: write "
            "it in full."
        ) from None


def _apply_rules(lexicon: Lexicon, texts: Sequence[str]) -> Iterator[Findings]:
    rules = FindingRules(lexicon)
    return (rules.find(text) for text in texts)


def _ask_command(command: str, texts: Sequence[str], lexicon: Lexicon) -> list[Findings]:
    """The answers of the user's command: a line of JSON a report, on its input and its output.

    What else it prints may be text of a report, and is dropped.
    """
    asked = "".join(
        json.dumps({"id": number, "report": text, "findings": list(lexicon.findings)}) + "\n"
        for number, text in enumerate(texts)
    )
    try:
        words = shlex.split(command)
        if not words:
            raise ValueError("it is empty")
        done = subprocess.run(words, input=asked.encode(), capture_output=True, check=False)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"--command cannot be run ({reason}): correct it.") from None
    if done.returncode:
        raise UserError(
            f"--command ended with exit code {done.returncode}: run it by hand on a line such as "
            '{"id": 0, "report": "..."} to see why.'
        )
    answers: list[Findings] = [dict.fromkeys(lexicon.findings) for _ in texts]
    answered = set()
    for number, line in enumerate(done.stdout.splitlines(), start=1):
        index, own = _parse_answer(line, number, len(texts), lexicon)
        answers[index] |= own
        answered.add(index)
    if left := len(texts) - len(answered):
        info(f"findings: --command gave no answer for {format_count(left, 'report')}: left empty.")
    return answers


def _parse_answer(
    line: bytes, number: int, n_reports: int, lexicon: Lexicon
) -> tuple[int, Findings]:
    """The report and the findings of a line. Raises UserError, without what the line says."""
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    index = answer.pop("id", None) if isinstance(answer, dict) else None
    if (
        type(index) is not int
        or not 0 <= index < n_reports
        or answer.keys() - lexicon.findings.keys()
    ):
        raise UserError(
            f"--command: line {number} of its output is no JSON object of the `id` of a report and "
            f"findings of the lexicon ({', '.join(lexicon.findings)}): let it print only these."
        )
    if any(value not in (True, False, None) for value in answer.values()):
        raise UserError(
            f"--command: line {number} of its output has a finding that is neither true, false nor "
            "null: let it print nothing else."
        )
    return index, {name: None if v is None else bool(v) for name, v in answer.items()}


def _combine(first: Findings, second: Findings) -> Findings:
    """Findings of two reports of a scan: present in either, absent where one says so."""
    return {
        name: own if first.get(name) is None else bool(first[name] or own)
        for name, own in second.items()
    }
