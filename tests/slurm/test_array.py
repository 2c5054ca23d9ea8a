"""An evaluation as a job array on a real SLURM: elements compute cells, one job the table."""

import json
import os
import signal
import subprocess
import sys

import pytest

from stages.core.runner import run_stage
from stages.core.study_file import load_study
from tests.conftest import write_study
from tests.slurm.slurm_harness import ROOT, slurm, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(420)]
RESOURCES = {"partition": "main", "time_min": 5, "signal_before_end_s": 30, "mem_gb": 3}


def prepared(tmp_path, steps):
    """A study that is to be fine-tuned, by an array of three, and the command that does it."""
    file = write_study(tmp_path)
    file.write_text(
        file.read_text().replace("finetune: {steps: 2,", f"finetune: {{steps: {steps},")
    )
    for name in ("inventory", "preprocess", "pretrain"):
        run_stage(name, load_study(file), {})
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(
        json.dumps({"defaults": RESOURCES, "stages": {"finetune": {"array_size": 3}}})
    )
    command = [sys.executable, "-m", "stages", "finetune", "--config", str(file), "task=side"]
    return load_study(file), [*command, "--on", str(cluster)]


def test_cells_are_sharded_by_an_array(tmp_path, outcome):
    """An array of three, then the job that waits for it."""
    study, command = prepared(tmp_path, steps=2)
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
    assert len(list((out / "cells").iterdir())) == 12
    logs = [tmp_path / f"out/jobs/finetune-side/{row[0]}/{row[0]}_0_log.out" for row in rows]
    assert all("is done" in log.read_text() for log in logs)
    log = tmp_path / f"out/jobs/finetune-side/{record['job']}/{record['job']}_0_log.out"
    assert "12/12" in log.read_text()  # it found them all
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "nothing to do" in again.stdout
    outcome("3 elements computed 12 cells, the job after them the table; then nothing to do")


def test_interrupting_ends_the_array_and_loses_no_cell(tmp_path, outcome):
    """Ctrl-C while cells are computed, then the same command again."""
    study, command = prepared(tmp_path, steps=150)
    cells = study.stage_folder("finetune", {"task": "side"}) / "cells"
    said = tmp_path / "said.txt"
    with open(said, "w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True
        )
    wait_until(lambda: cells.is_dir() and len(list(cells.glob("*.json"))) >= 2, "two cells", 120)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) == 3, said.read_text()
    record = json.loads((tmp_path / "out/jobs/finetune-side/job.json").read_text())
    numbers = f"{record['array']},{record['job']}"
    wait_until(lambda: not slurm("squeue", "-h", "-j", numbers), "all of it has left the queue")
    kept = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert 2 <= len(kept) < 12
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(list(cells.glob("*.json"))) == 12
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    outcome(f"interrupted with {len(kept)} cells, which the next run kept")
