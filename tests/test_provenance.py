"""What a record says of its own run."""

import subprocess
import sys

import numpy as np

from ssl_pipeline.provenance import git_commit


def test_a_clone_that_git_refuses_has_its_reason_for_a_commit(tmp_path, monkeypatch):
    assert git_commit(tmp_path) == ""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert git_commit(tmp_path).startswith("not known, fatal: ")
    assert "dubious ownership" in git_commit(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path).startswith("not known, ")


def test_peak_memory_is_not_that_of_whoever_started_the_process():
    ours = np.ones(2**26)  # half a GiB, resident
    code = "from ssl_pipeline.provenance import peak_memory_gib; print(peak_memory_gib())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.005 < float(done.stdout) < 0.3 < ours.nbytes / 2**30


def test_peak_memory_is_the_peak_and_counts_children():
    code = (
        "import subprocess, sys; from ssl_pipeline.provenance import peak_memory_gib; "
        "child = 'x = bytearray(b\"1\" * 2**29)'; before = peak_memory_gib(); "
        "subprocess.run([sys.executable, '-c', child], check=True); "
        "print(peak_memory_gib() - before); y = b'1' * 2**30; del y; print(peak_memory_gib())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    by_child, own = map(float, done.stdout.split())
    assert by_child > 0.4 and own > 1
