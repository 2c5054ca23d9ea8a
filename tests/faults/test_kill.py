"""Kill -9 in the middle of real runs: the next run ends with the weights of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
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


def run_whole(study, *until):
    whole = [*command(study)[:-2], *until] if until else command(study)
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def run_and_kill(study, ready, started=None, after=0.0):
    """Start the workflow, wait until `ready()` and a moment, kill every process of it at once."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(started or command(study), cwd=ROOT, start_new_session=True, **quiet)
    try:
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(after)
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
def test_killed_in_pretraining(undisturbed, tmp_path):
    study = study_in(tmp_path)
    for wanted in (3, 12):
        assert run_and_kill(study, lambda wanted=wanted: steps_logged(tmp_path) >= wanted)
    run_whole(study)
    assert (tmp_path / WEIGHTS).read_bytes() == undisturbed
    assert steps_logged(tmp_path) == STEPS // 2  # a line every second step, none twice


@pytest.mark.timeout(900)
def test_twenty_kills_and_other_numbers_of_readers_end_bit_for_bit(undisturbed, tmp_path):
    """At random moments of a step, of reading or of writing; the next run reads in more threads."""
    study = study_in(tmp_path)
    run_whole(study, "--until", "preprocess")
    text, chance = study.read_text(), random.Random(0)
    stage = [sys.executable, "-m", "stages", "pretrain", "--config", str(study)]
    for kill, wanted in enumerate(sorted(chance.sample(range(1, STEPS // 2), 20))):
        study.write_text(
            text.replace("threads: 1", f"threads: 1\n  loader_threads: {1 + kill % 3}")
        )
        ready = lambda wanted=wanted: steps_logged(tmp_path) >= wanted  # noqa: E731
        assert run_and_kill(study, ready, stage, after=chance.uniform(0, 0.2))
    study.write_text(text)
    run_whole(study)
    assert (tmp_path / WEIGHTS).read_bytes() == undisturbed
    assert steps_logged(tmp_path) == STEPS // 2
