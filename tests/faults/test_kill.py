"""Kill -9 in the middle of real runs: the next run ends with the weights of an undisturbed one."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import write_study

ROOT = Path(__file__).resolve().parent.parent.parent
WEIGHTS = "out/pretrain/encoder/encoder.safetensors"
STEPS = 60
pytestmark = pytest.mark.kill


def study_in(folder):
    study = write_study(folder)
    study.write_text(study.read_text().replace("steps: 6\n", f"steps: {STEPS}\n", 1))
    return study


def command(study):
    until = ["--until", "pretrain"]
    return ["snakemake", "--profile", "local", "--config", f"study={study}", *until]


def run_whole(study):
    done = subprocess.run(command(study), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def run_and_kill(study, ready):
    """Start the workflow, wait until `ready()`, kill every process of it at once."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(study), cwd=ROOT, start_new_session=True, **quiet)
    try:
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        killed = process.poll() is None
        if killed:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return killed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    study = study_in(tmp_path_factory.mktemp("undisturbed"))
    run_whole(study)
    return (study.parent / WEIGHTS).read_bytes()


def steps_logged(folder):
    logs = list(folder.glob("out/pretrain/runs/*/metrics.jsonl"))
    return len(logs[0].read_text().splitlines()) if logs else 0


@pytest.mark.timeout(600)
def test_killed_in_preprocessing(undisturbed, tmp_path):
    study = study_in(tmp_path)
    volumes = tmp_path / "out/preprocess/volumes"
    assert run_and_kill(study, lambda: volumes.is_dir() and any(volumes.iterdir()))
    run_whole(study)
    assert (tmp_path / WEIGHTS).read_bytes() == undisturbed


@pytest.mark.timeout(900)
def test_killed_again_and_again_in_pretraining(undisturbed, tmp_path):
    study = study_in(tmp_path)
    chance = random.Random(0)
    kills = 0
    for wanted in sorted(chance.sample(range(2, STEPS // 2), 5)):
        kills += run_and_kill(study, lambda wanted=wanted: steps_logged(tmp_path) >= wanted)
    assert kills == 5
    run_whole(study)
    assert (tmp_path / WEIGHTS).read_bytes() == undisturbed
    assert steps_logged(tmp_path) == STEPS // 2  # a line every second step, none twice
