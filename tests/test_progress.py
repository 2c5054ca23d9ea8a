"""The progress of an activity, as a log and the record beside it have it."""

import json
import os
import time

import pytest
from rich.table import Table

from ssl_pipeline.progress import (
    debug,
    info,
    log_to,
    plain_console,
    print_table,
    progress,
    read_progress,
    record_progress,
)


def test_the_record_has_the_last_item_when_all_are_done(tmp_path):
    path = tmp_path / "some.progress.json"
    with record_progress(path, "Some stage"), progress("Counting", 3) as bar:
        for name in ("a", "b", "c"):
            bar.advance(name)
    record = read_progress(path)
    assert (record.activity, record.done, record.total, record.detail) == ("Counting", 3, 3, "c")
    assert record.left_s == 0 and record.rate_per_s == 0


def test_the_record_names_activity_and_item_before_the_first_is_done(tmp_path):
    path = tmp_path / "some.progress.json"

    def shown():
        record = read_progress(path)
        return record.activity, record.done, record.total, record.detail

    with record_progress(path, "Evaluate"):
        assert shown() == ("Evaluate", 0, 0, "")
        with progress("Fine-tuning", 3) as bar:
            assert shown() == ("Fine-tuning", 0, 3, "")
            for number, cell in enumerate(("a", "b")):
                bar.begin(cell)
                assert shown() == ("Fine-tuning", number, 3, cell)
                bar.advance(cell)


def test_a_resumed_activity_has_the_rate_of_its_own_part(tmp_path):
    path = tmp_path / "some.progress.json"
    with record_progress(path, "Some stage"), progress("Training", 1000) as bar:
        bar.advance("", to=900)
        time.sleep(1.1)
        bar.advance("", to=950)
    record = read_progress(path)
    assert record.done == 950
    assert record.left_s == pytest.approx(record.elapsed_s)
    assert record.rate_per_s == pytest.approx(50 / record.elapsed_s)


def test_the_time_left_is_by_the_work_that_this_run_does_itself(tmp_path):
    """Small items come first, and the first of all was done by an earlier run."""
    path = tmp_path / "some.progress.json"
    with record_progress(path, "Some stage"), progress("Reading", 4, total_work=1000) as bar:
        bar.advance("known", work=500, is_new=False)
        time.sleep(1.1)
        bar.advance("small", work=100)
        record = read_progress(path)
    assert (record.done, record.total) == (2, 4)
    assert record.left_s == pytest.approx(4 * record.elapsed_s)


def test_the_record_is_written_at_most_once_a_second(tmp_path):
    path = tmp_path / "some.progress.json"
    with record_progress(path, "Some stage"), progress("Counting", 1000) as bar:
        bar.advance("first")
        for _ in range(100):
            bar.advance("later")
        assert read_progress(path).detail == "first"


def test_a_record_of_another_format_is_none(tmp_path):
    path = tmp_path / "some.progress.json"
    assert read_progress(path) is None
    path.write_text(json.dumps({"format": 0, "step": 3}))
    assert read_progress(path) is None
    with record_progress(path, "Counting"):
        content = json.loads(path.read_text())
    for wrong in ({"total": "x"}, {"left_s": None}, {"format": 0}):
        path.write_text(json.dumps(content | wrong))
        assert read_progress(path) is None


@pytest.mark.parametrize("text", ["Leukocytes [/µl]", "Dose [gy]", "50%[a]b :smile: {0} {x}"])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_users_text_is_shown_as_it_is(text, is_terminal, monkeypatch, tmp_path):
    file = open(tmp_path / "console", "w+")  # noqa: SIM115
    shown = plain_console(file=file)
    shown._force_terminal = is_terminal
    monkeypatch.setattr("ssl_pipeline.progress.console", shown)
    with log_to(tmp_path / "some.log"), progress(text, 1) as bar:
        bar.advance(text)
        info(text)
        debug(text)
    table = Table(text, title=text)
    table.add_row(text)
    print_table(table)
    file.close()
    said = (tmp_path / "console").read_text()
    assert said.count(text) >= 4 and (tmp_path / "some.log").read_text().count(text) == 4


def test_a_log_has_plain_lines_with_their_brackets(tmp_path):
    with log_to(tmp_path / "some.log"), progress("Counting", 1) as bar:
        bar.advance("[bold]a")
    line = (tmp_path / "some.log").read_text()
    assert line == "Counting: 1/1 after 0.0 s  [bold]a\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "some.log"]


def test_names_that_are_not_utf8_are_printed_with_escapes(capfd, tmp_path):
    with log_to(tmp_path / "a.log"):
        info(os.fsdecode(b"M\xfcller \xc3\xbc"))
    assert "M\\xfcller ü" in capfd.readouterr().out
    assert "M\\xfcller ü" in (tmp_path / "a.log").read_text()
