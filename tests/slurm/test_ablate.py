"""An ablation on a real SLURM: every trial is trained and evaluated by jobs of its own."""

import json
import subprocess

import pytest
import yaml

from tests.conftest import write_study
from tests.slurm.slurm_harness import ROOT, slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(420)]
RESOURCES = {"partition": "main", "time_min": 5, "signal_before_end_s": 30, "mem_gb": 3}


def test_trials_are_jobs(tmp_path, outcome):
    """Ablation, then the same command again."""
    file = write_study(tmp_path)
    content = yaml.safe_load(file.read_text())
    content["tasks"].pop("tissue")
    content["ablate"] = {"seeds": 2, "arms": {"mae": {"name": "mae"}}}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(json.dumps({"defaults": RESOURCES, "stages": {"pretrain": {}, "probe": {}}}))
    command = ["snakemake", "ablate", "--profile", "slurm", "--config", f"study={file}"]
    command += ["--default-resources", f"run_on={cluster}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {folder.name: folder / "job.json" for folder in (tmp_path / "out/jobs").iterdir()}
    trials = [f"{arm}-{seed}" for arm in ("mae", "random") for seed in (0, 1)]
    trained = {f"pretrain@{trial}" for trial in trials[:2]}
    assert jobs.keys() == trained | {f"probe-side@{trial}" for trial in trials}
    for record in jobs.values():
        job = json.loads(record.read_text())["job"]
        assert slurm("sacct", "-nXP", "-j", job, "-o", "state") == "COMPLETED"
    assert "mae minus random" in (tmp_path / "out/ablate/ablation.md").read_text()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "Nothing to be done" in again.stdout + again.stderr
    outcome(f"{len(jobs)} jobs, one table; then nothing to do")
