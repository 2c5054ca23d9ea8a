"""The write lease: only the newest attempt writes; without a lease nothing is checked."""

import subprocess
import sys

import pytest

from ssl_pipeline.io import lease
from ssl_pipeline.io.atomic import write_text
from ssl_pipeline.training.metrics_log import MetricsLog, read_metrics


@pytest.fixture(autouse=True)
def unleased(monkeypatch):
    monkeypatch.setenv(lease.LEASE_VARIABLE, "")  # so that it is put back
    monkeypatch.delenv(lease.LEASE_VARIABLE)


def become_attempt(folder, job, attempt):
    """Become this attempt again, as the process that is given up would."""
    lease.acquire(folder, job, attempt)
    return lease.os.environ[lease.LEASE_VARIABLE]


def test_without_a_lease_everything_is_written(tmp_path):
    lease.check()
    write_text(tmp_path / "file", "new")
    assert not lease.is_held() and (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("newer", [(7, 1), (8, 0)])
def test_an_older_attempt_renames_and_appends_nothing(tmp_path, monkeypatch, newer):
    old = become_attempt(tmp_path, 7, 0)
    write_text(tmp_path / "file", "old")
    metrics = MetricsLog(tmp_path, 0)
    metrics.write_row({"step": 1})
    lease.acquire(tmp_path, *newer)
    monkeypatch.setenv(lease.LEASE_VARIABLE, old)
    with pytest.raises(lease.LeaseLostError, match="Attempt 0 of job 7 was given up and attempt"):
        write_text(tmp_path / "file", "older")
    with pytest.raises(lease.LeaseLostError):
        metrics.write_row({"step": 2})
    metrics.close()
    assert (tmp_path / "file").read_text() == "old"
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("older", [(7, 0), (6, 5)])
def test_an_older_attempt_that_wakes_late_takes_no_lease(tmp_path, older):
    lease.acquire(tmp_path, 7, 1)
    with pytest.raises(lease.LeaseLostError):
        lease.acquire(tmp_path, *older)


def test_tasks_of_one_attempt_share_the_lease(tmp_path):
    lease.acquire(tmp_path, 7, 1)
    lease.acquire(tmp_path, 7, 1)
    lease.check()


def test_a_run_by_hand_takes_the_right_to_write(tmp_path):
    lease.acquire(tmp_path, 7, 0)
    lease.revoke(tmp_path)
    with pytest.raises(lease.LeaseLostError, match="another run"):
        lease.check()


def test_worker_processes_are_fenced_too(tmp_path):
    lease.acquire(tmp_path, 7, 0)
    (tmp_path / lease.LEASE_FILE).write_text('{"job": 7, "attempt": 1}')
    code = "from ssl_pipeline.io import lease; lease.check()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "LeaseLostError: Attempt 0 of job 7" in done.stderr
