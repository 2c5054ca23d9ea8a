"""`ssl-pipeline findings`: a table of codes, in which no word of a report is."""

import csv
import shlex
import sys

import pytest

from stages.cli import main

NAME, TEXT = "QZDOE", "qzwordofreport"
REPORTS = {
    "a.nii": f"Mr {NAME} {TEXT}. Left effusion, no nodule.",
    "b.nii": f"{NAME}, {TEXT}: no effusion",
    "c.nii": f"{TEXT} unremarkable {NAME}",
    "gone.nii": f"{NAME} mass {TEXT}",
}
ANSWER = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    print(asked["report"], file=sys.stderr)
    {body}
"""


@pytest.fixture
def reports(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in list(REPORTS)[:-1]:
        (folder / name).write_text("")
    path = folder / "reports.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "report"), *REPORTS.items()])
    return path


def command(tmp_path, body):
    script = tmp_path / "model.py"
    script.write_text(ANSWER.replace("{body}", body))
    return shlex.join([sys.executable, str(script)])


def run(capfd, *words):
    """Exit code and output of a command, which says nothing of any report."""
    code = main(["findings", *map(str, words)])
    said = "".join(capfd.readouterr())
    assert NAME not in said and TEXT not in said
    return code, said


def rows_of(out):
    text = out.read_text()
    assert NAME not in text and TEXT not in text
    return {row.pop("path"): row for row in csv.DictReader(text.splitlines())}


def test_the_table_has_codes_alone_and_counts_reports_without_a_scan(reports, tmp_path, capfd):
    out = tmp_path / "findings.csv"
    code, said = run(capfd, reports, "--out", out)
    assert code == 0 and "1 report of scans that are not there" in said and "3 scans in" in said
    rows = rows_of(out)
    assert list(rows) == ["raw/a.nii", "raw/b.nii", "raw/c.nii"]
    assert [row["effusion"] for row in rows.values()] == ["1", "0", ""]
    assert rows["raw/a.nii"]["nodule"] == "0"
    assert {value for row in rows.values() for value in row.values()} == {"", "0", "1"}


def test_reports_of_one_scan_are_combined(reports, tmp_path, capfd):
    with reports.open("a") as file:
        file.write("b.nii,Effusion.\nc.nii,No mass.\na.nii,Normal.\n")
    assert run(capfd, reports, "--out", tmp_path / "f.csv")[0] == 0
    rows = rows_of(tmp_path / "f.csv")
    assert [row["effusion"] for row in rows.values()] == ["1", "1", ""]
    assert rows["raw/c.nii"]["mass"] == "0"


def test_a_command_of_the_user_may_find_them(reports, tmp_path, capfd):
    body = "print(json.dumps({'id': asked['id'], 'effusion': 'effusion' in asked['report']}))"
    words = (reports, "--out", tmp_path / "f.csv", "--command", command(tmp_path, body))
    assert run(capfd, *words)[0] == 0
    assert [row["effusion"] for row in rows_of(tmp_path / "f.csv").values()] == ["1", "1", "0"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("print(asked['report'])", "line 1 of its output is no JSON object"),
        ("print(json.dumps({'id': 0, asked['report']: True}))", "line 1 of its output is no JSON"),
        ("print(json.dumps({'id': 99, 'mass': True}))", "line 1 of its output is no JSON object"),
        (
            "print(json.dumps({'id': 0, 'mass': asked['report']}))",
            "has a finding that is neither true, false nor null",
        ),
        ("print(json.dumps({'id': 0, 'mass': [1]}))", "neither true, false nor null"),
        ("sys.exit(asked['report'])", "ended with exit code 1"),
    ],
)
def test_text_that_a_command_gives_back_is_refused(body, sentence, reports, tmp_path, capfd):
    out = tmp_path / "f.csv"
    code, said = run(capfd, reports, "--out", out, "--command", command(tmp_path, body))
    assert code == 2 and sentence in said and not out.exists()


def test_reports_that_a_command_leaves_out_are_counted(reports, tmp_path, capfd):
    body = "print(json.dumps({'id': 1, 'mass': True})) if asked['id'] == 1 else None"
    words = (reports, "--out", tmp_path / "f.csv", "--command", command(tmp_path, body))
    code, said = run(capfd, *words)
    assert code == 0 and "no answer for 2 reports" in said
    assert [row["mass"] for row in rows_of(tmp_path / "f.csv").values()] == ["", "1", ""]


def test_a_table_without_text_or_path_is_refused(reports, tmp_path, capfd):
    out = tmp_path / "f.csv"
    assert "needs one column `text`" in run(capfd, reports, "--out", out, "--column", "text")[1]
    reports.write_text(f"path,report\n,{NAME} {TEXT}\n")
    assert "row 1 has no `path`" in run(capfd, reports, "--out", out)[1]


def test_text_in_the_column_of_paths_is_not_shown(reports, tmp_path, capfd):
    words = (reports, "--out", tmp_path / "f.csv")
    reports.write_text(f"path,report\n{f'{NAME} {TEXT} ' * 40},b.nii\n")
    code, said = run(capfd, *words)
    assert code == 0 and "1 report of scans that are not there" in said
    reports.write_text(f"path,report\n${NAME} of {TEXT},b.nii\n")
    code, said = run(capfd, *words)
    assert code == 2 and "row 1 has a `path` with an environment variable" in said


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_command_is_refused(empty, reports, tmp_path, capfd):
    code, said = run(capfd, reports, "--out", tmp_path / "f.csv", "--command", empty)
    assert code == 2 and "--command cannot be run (it is empty)" in said


def test_a_command_that_is_not_there_is_refused(reports, tmp_path, capfd):
    words = (reports, "--out", tmp_path / "f.csv", "--command", "/no/such/model")
    code, said = run(capfd, *words)
    assert code == 2 and "--command cannot be run (No such file or directory)" in said
