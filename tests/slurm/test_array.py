"""A judgement as an array on a real SLURM: its elements compute the cells, one job the table."""

import json
import subprocess
import sys

import pytest

from stages.contract import perform
from stages.study import load
from tests.conftest import write_study
from tests.slurm.lab import ROOT, slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(420)]
RESOURCES = {"partition": "main", "time_min": 5, "notice_s": 30, "mem_gb": 3}


def test_cells_are_shared_by_an_array(tmp_path, outcome):
    """An array of three, then the job that waits for it."""
    file = write_study(tmp_path)
    study = load(file)
    for name in ("inventory", "preprocess", "pretrain"):
        perform(name, study, {})
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(json.dumps({"defaults": RESOURCES, "stages": {"finetune": {"array": 3}}}))
    command = [sys.executable, "-m", "stages", "finetune", "--config", str(file), "task=side"]
    command += ["--on", str(cluster)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "out/jobs/finetune-side/job.json").read_text())
    elements = slurm("sacct", "-nXP", "-j", record["array"], "-o", "jobid,state,end").splitlines()
    rows = [line.split("|") for line in elements]
    assert sorted(row[0] for row in rows) == [f"{record['array']}_{n}" for n in range(3)]
    assert {row[1] for row in rows} == {"COMPLETED"}
    began, state = slurm("sacct", "-nXP", "-j", record["job"], "-o", "start,state").split("|")
    assert state == "COMPLETED" and began >= max(row[2] for row in rows)
    out = study.stage_folder("finetune", {"task": "side"})
    assert len(list((out / "cells").iterdir())) == 9
    logs = [tmp_path / f"out/jobs/finetune-side/{row[0]}/{row[0]}_0_log.out" for row in rows]
    assert all("is done" in log.read_text() for log in logs)
    log = tmp_path / f"out/jobs/finetune-side/{record['job']}/{record['job']}_0_log.out"
    assert "9/9" in log.read_text()  # it found them all
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "nothing to do" in again.stdout
    outcome("3 elements computed 9 cells, the job after them the table; then nothing to do")
