"""The demo on a real SLURM, from raw files to its page, pretrained on two nodes of two tasks."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.slurm.conftest import edit
from tests.slurm.slurm_harness import ROOT, slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]


@pytest.fixture
def demo(tmp_path):
    """The demo's own study, writing elsewhere, and a cluster file that gives it four ranks."""
    shutil.copytree(ROOT / "workflows/studies/lists", tmp_path / "lists")
    study = Path(shutil.copy(ROOT / "workflows/studies/demo.yaml", tmp_path))
    study.write_text(study.read_text().replace("build/demo", str(tmp_path / "out")))
    edit(study, "name: demo\n", f"name: demo\noutput: {tmp_path / 'out'}\n")
    for steps in ("      steps: 60\n", "finetune:\n  steps: 50\n"):  # here they need not learn
        edit(study, steps, steps.replace("60", "5").replace("50", "5"))
    cluster = {
        "defaults": {"partition": "main", "time_min": 20, "mem_gb": 3, "cpus": 2},
        "stages": {
            "preprocess": {},
            "pretrain": {"nodes": 2, "tasks_per_node": 2, "cpus": 1},
            "probe": {},
            "finetune": {},
        },
    }
    (tmp_path / "cluster.yaml").write_text(json.dumps(cluster))
    return study


def snakemake(study):
    where = ["--default-resources", f"run_on={study.parent / 'cluster.yaml'}"]
    command = ["snakemake", "--profile", "slurm", *where, "--config", f"study={study}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_demo_on_two_nodes(demo, outcome):
    """Nothing: the whole demo, two nodes with two tasks each."""
    snakemake(demo)
    out = demo.parent / "out"
    job = json.loads((out / "jobs/pretrain/job.json").read_text())["job"]
    assert slurm("sacct", "-nXP", "-j", job, "-o", "state,nnodes") == "COMPLETED|2"
    assert json.loads((out / "pretrain/run.json").read_text())["ranks"] == 4
    (log,) = out.glob("pretrain/runs/*/metrics.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps)) and steps[-1] == 400
    reconstruction = [row["reconstruction"] for row in rows]
    assert sum(reconstruction[-5:]) < sum(reconstruction[:5])
    assert "Organ in the middle of a CT crop" in (out / "report/report.html").read_text()
    assert "Nothing to be done" in snakemake(demo)
    outcome("every stage done, one checkpoint; a second run has nothing to do")
