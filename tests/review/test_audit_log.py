"""The audit trail: nothing that was saved is lost, and nothing that was changed is believed."""

import errno
import hashlib
import itertools
import json
import os
import random
import stat
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.review import audit_log
from ssl_pipeline.review.audit_log import AuditLog, anchor_of
from ssl_pipeline.review.verdicts import decisions_of
from tests.review.conftest import ANSWER, answer_of

WRITER = """
import sys
from pathlib import Path
from ssl_pipeline.review.audit_log import AuditLog
from tests.review.conftest import ANSWER
for _ in range(int(sys.argv[3])):
    AuditLog(Path(sys.argv[1])).append(sys.argv[2], ANSWER)
"""
HEAD = audit_log.HEAD_FILE


@pytest.fixture
def filled(log):
    """A log of four lines."""
    for number in range(4):
        log.append("reader2", answer_of(dwell_s=number))
    return log


def append_in_processes(log, count):
    """Two readers append `count` answers each, at once."""
    command = [sys.executable, "-c", WRITER, str(log.path.parent)]
    writers = [subprocess.Popen([*command, reader, str(count)]) for reader in ("anna", "ben")]
    assert [writer.wait() for writer in writers] == [0, 0]
    entries = log.read()
    assert [entry.number for entry in entries] == list(range(1, 2 * count + 1))
    assert sum(entry.reader == "anna" for entry in entries) == count


def mutated(lines, random_source):
    """The lines after one edit, deletion, swap, insertion or cut; may be as they were."""
    lines, at = list(lines), random_source.randrange(len(lines))
    kind = random_source.choice(("edit", "delete", "swap", "insert", "cut"))
    if kind == "edit":
        line = bytearray(lines[at])
        line[random_source.randrange(len(line))] = random_source.randrange(256)
        lines[at] = bytes(line)
    elif kind == "delete":
        del lines[at]
    elif kind == "swap":
        other = random_source.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "insert":
        lines.insert(random_source.randrange(len(lines) + 1), lines[at])
    content = b"".join(lines)
    return content[: random_source.randrange(len(content))] if kind == "cut" else content


def test_what_was_answered_is_read_back_by_number_with_who_and_when(filled):
    entries = AuditLog(filled.path.parent).read()
    assert [entry.number for entry in entries] == list(range(1, 5))
    last = entries[-1]
    assert (last.reader, last.answer, last.dwell_s) == ("reader2", "reject", 3)
    assert last.time.utcoffset().total_seconds() == 0 and last.version


def test_log_and_head_are_for_their_owner_alone(open_umask, filled):
    for name in (filled.path.name, HEAD):
        assert stat.S_IMODE((filled.path.parent / name).stat().st_mode) == 0o600


def count_missed(log, rounds):
    """How many of so many random mutations of a log are read as if nothing had happened."""
    before, random_source, tried, missed = log.path.read_bytes(), random.Random(0), 0, 0
    while tried < rounds:
        content = mutated(before.splitlines(keepends=True), random_source)
        if content == before:
            continue
        log.path.write_bytes(content)
        tried += 1
        try:
            log.read()
        except UserError as error:
            assert "restore the log and its head together from a backup" in str(error)
        else:
            missed += 1
    log.path.write_bytes(before)
    return missed


def test_a_thousand_mutations_are_found(filled):
    assert count_missed(filled, 1000) == 0


def test_a_log_without_its_head_and_a_head_without_its_log_are_found(filled):
    head = filled.path.with_name(HEAD)
    content = head.read_bytes()
    head.unlink()
    with pytest.raises(UserError, match="is lost"):
        filled.read()
    head.write_bytes(content)
    filled.path.unlink()
    for use in (filled.read, lambda: filled.append("reader2", ANSWER)):
        with pytest.raises(UserError, match="changed, added or removed"):
            use()


def test_a_log_that_was_written_anew_fails_an_older_anchor(filled, tmp_path):
    anchor = anchor_of(filled.read())
    filled.append("reader2", ANSWER)
    filled.check_anchor(filled.read(), anchor)
    (tmp_path / "other").mkdir()
    forged = AuditLog(tmp_path / "other")
    for _ in range(5):
        forged.append("reader2", ANSWER)
    assert len(forged.read()) == 5
    for wrong in (anchor, "99:" + "0" * 64, "nothing"):
        with pytest.raises(UserError, match="does not go on from the anchor"):
            forged.check_anchor(forged.read(), wrong)


@pytest.mark.parametrize("kept", [0, 1, 100])
def test_a_line_torn_by_a_kill_is_removed_and_said(filled, kept, capsys, monkeypatch):
    whole = filled.path.read_bytes()

    def die(line):
        filled.path.write_bytes(whole + line[:kept])
        raise SystemExit

    monkeypatch.setattr(filled, "_write_line", die)
    with pytest.raises(SystemExit):
        filled.append("reader2", ANSWER)
    again = AuditLog(filled.path.parent)
    assert len(again.read()) == 4
    assert again.append("reader2", ANSWER).number == 5
    assert len(again.read()) == 5
    assert ("torn and never confirmed" in capsys.readouterr().out) == (kept > 0)


def test_a_line_that_is_whole_counts_where_its_writer_was_killed_behind_it(filled, monkeypatch):
    monkeypatch.setattr(audit_log, "_head_after", lambda *_: sys.exit())
    with pytest.raises(SystemExit):
        filled.append("reader2", ANSWER)
    monkeypatch.undo()
    assert len(filled.read()) == 5
    assert filled.append("reader2", ANSWER).number == 6


def test_a_full_disk_refuses_the_answer_and_keeps_those_before(filled, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            filled.append("reader2", ANSWER)
    assert len(filled.read()) == 4
    assert filled.append("reader2", ANSWER).number == 5


def test_a_full_disk_behind_the_line_refuses_it_too(filled, monkeypatch):
    write_head, count = filled._write_head, iter(range(9))

    def full(head):
        if next(count) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_head(head)

    monkeypatch.setattr(filled, "_write_head", full)
    with pytest.raises(OSError, match="No space left"):
        filled.append("reader2", ANSWER)
    assert len(filled.read()) == 4


def test_the_number_and_not_a_clock_says_the_order(log, monkeypatch):
    class WrongClock(datetime):
        days = itertools.count(9000, -1)

        @classmethod
        def now(cls, zone):
            return datetime(1970, 1, 1, tzinfo=zone) + timedelta(next(cls.days))

    monkeypatch.setattr(audit_log, "datetime", WrongClock)
    for word in ("accept", "reject"):
        log.append("anna", answer_of(answer=word))
    first, second = log.read()
    assert second.time < first.time and second.number == 2
    (decision,) = decisions_of([first, second]).scans.values()
    assert decision.outcome[0] == "reject", "the last by number"


def test_two_processes_append_to_one_log(log):
    append_in_processes(log, 5)


@pytest.mark.kill
def test_two_processes_append_a_thousand_answers(log):
    append_in_processes(log, 500)


@pytest.mark.parametrize("reader", ["", "Doe, John", "../x", "a" * 33])
def test_a_reader_is_a_short_code(log, reader):
    with pytest.raises(ValueError, match="reader"):
        log.append(reader, ANSWER)
    assert log.read() == ()


def test_lines_of_format_1_are_verified_and_go_on_in_format_2(log):
    """The overlay was a boolean then."""
    log.append("anna", answer_of())
    old = json.loads(log.path.read_text()) | {"format": 1}
    old["view"]["overlay"] = True
    line = json.dumps(old, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    log.path.write_bytes(line)
    head = {"lines": 1, "bytes": len(line), "last": hashlib.sha256(line).hexdigest()}
    log.path.with_name(HEAD).write_text(json.dumps({"format": 1, **head}))
    anchor = anchor_of(log.read())
    assert anchor == f"1:{head['last']}"
    log.append("anna", answer_of())
    entries = log.read()
    log.check_anchor(entries, anchor)
    assert [(entry.format, entry.view.overlay) for entry in entries] == [(1, True), (2, "")]
    log.append("anna", entries[0].withdrawal())
    last = log.read()[-1]
    assert (last.key, last.answer, last.view.overlay) == (entries[0].key, "withdraw", "")
    with pytest.raises(ValueError, match="give the overlay's name"):
        answer_of(view={**old["view"], "overlay": True})
