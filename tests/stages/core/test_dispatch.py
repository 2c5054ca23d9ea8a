"""Where a stage runs: what is refused, and what status and logs show without any SLURM."""

import json
import os
import sys
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import pytest

from ssl_pipeline.progress import read_progress, record_progress
from stages.commands.status import status_table
from stages.core import layout
from stages.core.elapsed import elapsed_before, record_elapsed
from stages.core.stage_runs import stage_runs
from stages.core.study_file import load_study
from tests.command_line import run_forked
from tests.conftest import write_study

# No SLURM commands on this path, whatever the machine has.
ENV = {**os.environ, "PATH": str(Path(sys.executable).parent), "COLUMNS": "200"}


def run_cli(*words):
    return run_forked("stages", words, env=ENV)


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


def pretrain_row(study):
    shown = status_table(load_study(study))
    columns = {str(column.header): list(column.cells) for column in shown.columns}
    at = columns["stage"].index("pretrain")
    return {name: cells[at] for name, cells in columns.items()}


def test_status_shows_a_running_stage_and_its_work_until_it_ends_or_is_killed(study):
    run = stage_runs(load_study(study))["pretrain"]
    before = elapsed_before(run.out, "key").model_copy(update={"seconds": 80.0})
    path, record = layout.progress_file(run.study, "pretrain"), run.out / layout.ELAPSED_RECORD
    assert pretrain_row(study)["state"] == ""
    with record_elapsed(run.out, before), record_progress(path, "Pretrain the encoder"):
        row = pretrain_row(study)
        assert row["state"].startswith(f"running since {datetime.now():%Y-}")
        assert (row["works on"], row["step"]) == ("Pretrain the encoder", "")
        assert row["elapsed"] == "1 min 20 s"
        work = read_progress(path)
        work = replace(work, activity="Pretraining", done=40, total=100, left_s=120.0)
        path.write_text(json.dumps(asdict(work)))
        row = pretrain_row(study)
        assert (row["step"], row["rate"], row["left"]) == ("40/100", "0.5/s", "2 min 0 s")
        content = json.loads(record.read_text())
    row = pretrain_row(study)
    assert (row["state"], row["step"]) == ("stopped", "40/100")
    assert "rate" not in row and "works on" not in row
    record.write_text(json.dumps(content | {"updated": content["updated"] - 1000}))  # killed
    assert pretrain_row(study)["state"] == "stopped"
    record.unlink()
    path.unlink()


def test_queries_write_nothing(study):
    def files():
        return {path: path.stat().st_mtime_ns for path in study.parent.rglob("*")}

    before = files()
    for words in (["status"], ["estimate"], ["logs", "preprocess"]):
        done = run_cli(*words, "--config", study)
        assert done.returncode == 0 and done.stdout, done.stderr
    assert files() == before
