"""A step's memory does not grow: a leak of a megabyte a step would end a run of weeks."""

import resource
import subprocess
import sys

import pytest

from tests.conftest import write_study
from tests.faults.test_kill import ROOT

pytestmark = pytest.mark.kill
STEPS, EARLY = 1000, 200
WATCH = """
import resource, sys
from ssl_pipeline.training.loop import Trainer
from stages.core.runner import run_stage
from stages.core.study_file import load_study

train, peaks = Trainer.train, {}

def watch(step):
    peaks[step] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

Trainer.train = lambda run: train(run, on_step=watch)
study = load_study(__import__("pathlib").Path(sys.argv[1]))
for stage in ("inventory", "preprocess", "pretrain"):
    run_stage(stage, study, {})
print("peaks", peaks[EARLY], peaks[STEPS - 1])
"""


@pytest.mark.timeout(1200)
def test_memory_does_not_grow_over_a_thousand_steps(tmp_path):
    study = write_study(tmp_path)
    text = study.read_text().replace("steps: 6\n", f"steps: {STEPS}\n", 1)
    text = text.replace("checkpoint_every: 2", "checkpoint_every: 50\n  loader_threads: 2")
    study.write_text(text + "monitoring: {snapshot_every: 100, snapshot_samples: 8, stop_on: []}\n")
    code = WATCH.replace("EARLY", str(EARLY)).replace("STEPS", str(STEPS))
    done = subprocess.run(
        [sys.executable, "-c", code, str(study)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    early, late = (int(word) for word in done.stdout.split("peaks ")[1].split()[:2])
    page = resource.getpagesize() / 1024
    assert page < early <= late < early * 1.02  # KiB; a megabyte a step would add 800 MiB
