"""Where a stage runs: what is refused, and what status and logs show without any SLURM."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.conftest import write_study

# No SLURM commands on this path, whatever the machine has.
ENV = {**os.environ, "PATH": str(Path(sys.executable).parent), "COLUMNS": "200"}


def run_cli(*words):
    command = [sys.executable, "-m", "stages", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The tiny study, preprocessed by hand."""
    made = write_study(tmp_path_factory.mktemp("place"))
    for name in ("inventory", "preprocess"):
        assert run_cli(name, "--config", made).returncode == 0
    return made


def test_an_unknown_cluster_is_one_sentence(study):
    done = run_cli("pretrain", "--config", study, "--on", "slrum")
    assert done.returncode == 2 and "did you mean slurm?" in done.stderr


def test_without_slurm_nothing_is_submitted(study):
    done = run_cli("pretrain", "--config", study, "--on", "slurm")
    assert done.returncode == 2 and "There is no squeue here" in done.stderr, done.stderr


def test_a_stage_that_the_cluster_file_does_not_name_runs_here(study):
    cluster = study.with_name("cluster.yaml")
    cluster.write_text("stages: {pretrain: }")
    done = run_cli("preprocess", "--config", study, "--on", cluster)
    assert done.returncode == 0 and "nothing to do" in done.stdout


def test_a_stage_that_is_done_needs_no_slurm(study):
    (study.parent / "out/preprocess/manifest.json").unlink()
    done = run_cli("preprocess", "--config", study, "--on", "slurm")
    assert done.returncode == 0 and "nothing to do" in done.stdout, done.stderr
    assert (study.parent / "out/preprocess/manifest.json").exists()


def test_status_and_logs_need_no_slurm(study):
    done = run_cli("status", "--config", study)
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert done.returncode == 0, done.stderr
    assert "done" in rows["preprocess"] and "6/6" in rows["preprocess"]
    assert "done" not in rows["pretrain"] and "probe-side" in rows
    assert "6 volumes stored" in run_cli("logs", "preprocess", "--config", study).stdout
    assert "did you mean probe-side?" in run_cli("logs", "probe-sid", "--config", study).stderr
    assert "has written no log yet" in run_cli("logs", "probe-side", "--config", study).stderr


def test_status_has_rate_and_time_left_of_a_stage_that_works_now(study):
    record = {
        "format": 1, "activity": "Pretraining", "done": 40, "total": 100, "elapsed_s": 80.0,
        "left_s": 120.0, "detail": "", "updated": datetime.now(UTC).isoformat(),
    }  # fmt: skip
    path = study.parent / "out/logs/pretrain.progress.json"
    path.write_text(json.dumps(record))
    now = run_cli("status", "--config", study).stdout
    assert "40/100" in now and "0.5/s" in now and "2 min 0 s" in now and "1 min 20 s" in now
    path.write_text(json.dumps(record | {"updated": "2020-01-01T00:00:00+00:00"}))
    stale = run_cli("status", "--config", study).stdout
    assert "40/100" in stale and "0.5/s" not in stale and "2 min 0 s" not in stale
    path.unlink()


def test_queries_write_nothing(study):
    def files():
        return {path: path.stat().st_mtime_ns for path in study.parent.rglob("*")}

    before = files()
    for words in (["status"], ["estimate"], ["logs", "preprocess"]):
        done = run_cli(*words, "--config", study)
        assert done.returncode == 0 and done.stdout, done.stderr
    assert files() == before
