"""Only the newest attempt writes; who holds no lease is free."""

import subprocess
import sys

import pytest

from ssl_pipeline import fence
from ssl_pipeline.atomic import write_text
from ssl_pipeline.training.metrics import Metrics, read


@pytest.fixture(autouse=True)
def unleased(monkeypatch):
    monkeypatch.setenv(fence.HELD, "")  # so that it is put back
    monkeypatch.delenv(fence.HELD)


def hold(folder, job, attempt):
    """Become this attempt again, as the process that is given up would."""
    fence.take(folder, job, attempt)
    return fence.os.environ[fence.HELD]


def test_without_a_lease_everything_is_written(tmp_path):
    fence.check()
    write_text(tmp_path / "file", "new")
    assert not fence.is_held() and (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("newer", [(7, 1), (8, 0)])
def test_an_older_attempt_renames_and_appends_nothing(tmp_path, monkeypatch, newer):
    old = hold(tmp_path, 7, 0)
    write_text(tmp_path / "file", "old")
    metrics = Metrics(tmp_path, 0)
    metrics.write({"step": 1})
    fence.take(tmp_path, *newer)
    monkeypatch.setenv(fence.HELD, old)
    with pytest.raises(fence.FencedError, match="Attempt 0 of job 7 was given up and attempt"):
        write_text(tmp_path / "file", "older")
    with pytest.raises(fence.FencedError):
        metrics.write({"step": 2})
    metrics.close()
    assert (tmp_path / "file").read_text() == "old"
    assert read(tmp_path / "metrics.jsonl") == [{"step": 1}]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("older", [(7, 0), (6, 5)])
def test_an_older_attempt_that_wakes_late_takes_no_lease(tmp_path, older):
    fence.take(tmp_path, 7, 1)
    with pytest.raises(fence.FencedError):
        fence.take(tmp_path, *older)


def test_tasks_of_one_attempt_share_the_lease(tmp_path):
    fence.take(tmp_path, 7, 1)
    fence.take(tmp_path, 7, 1)
    fence.check()


def test_a_run_by_hand_takes_the_right_to_write(tmp_path):
    fence.take(tmp_path, 7, 0)
    fence.revoke(tmp_path)
    with pytest.raises(fence.FencedError, match="another run"):
        fence.check()


def test_worker_processes_are_fenced_too(tmp_path):
    fence.take(tmp_path, 7, 0)
    (tmp_path / fence.LEASE).write_text('{"job": 7, "attempt": 1}')
    code = "from ssl_pipeline import fence; fence.check()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "FencedError: Attempt 0 of job 7" in done.stderr
