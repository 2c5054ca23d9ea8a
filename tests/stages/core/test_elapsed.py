"""A stage's time is that of all its starts, however they ended."""

import os
import signal
import subprocess
import sys

import pytest

from ssl_pipeline.io.records import write_record
from ssl_pipeline.volumes.inventory import INVENTORY_FILE
from stages.core import elapsed
from stages.core.elapsed import elapsed_before, record_elapsed
from stages.core.records import read_completion
from stages.core.runner import ROOT, run_stage
from stages.core.study_file import load_study


def test_the_time_of_failed_and_of_killed_starts_counts(tmp_path):
    before = elapsed_before(tmp_path, "key")
    assert before.seconds == 0
    with pytest.raises(RuntimeError), record_elapsed(tmp_path, before):
        raise RuntimeError
    failed = elapsed_before(tmp_path, "key")
    assert failed.seconds > 0 and failed.first_start == before.first_start
    code = (
        "import os, signal, sys, time; from pathlib import Path\n"
        "from stages.core import elapsed; elapsed.INTERVAL_S = 0.02; out = Path(sys.argv[1])\n"
        "with elapsed.record_elapsed(out, elapsed.elapsed_before(out, 'key')):\n"
        "    time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env)
    assert done.returncode == -signal.SIGKILL
    killed = elapsed_before(tmp_path, "key")
    assert killed.seconds > failed.seconds and killed.first_start == before.first_start
    assert elapsed_before(tmp_path, "of other settings").seconds == 0


def test_a_damaged_record_of_time_stops_nothing(tmp_path):
    (tmp_path / elapsed.ELAPSED_RECORD).write_text("")
    assert elapsed_before(tmp_path, "key").seconds == 0


def test_provenance_has_the_time_of_all_starts(study_file):
    study = load_study(study_file)
    out = study.stage_folder("inventory", {})
    run_stage("inventory", study, {})
    first = read_completion(out)
    known = elapsed_before(out, first.key)
    write_record(out / elapsed.ELAPSED_RECORD, known.model_copy(update={"seconds": 1300.0}))
    (out / INVENTORY_FILE).unlink()
    run_stage("inventory", study, {})
    again = read_completion(out).provenance
    assert again.wall_s > 1300
    assert again.started_at == first.provenance.started_at
