"""A review on a real SLURM: while readers are awaited no job runs, waits or holds a node."""

import json
import subprocess

import pytest

from ssl_pipeline.review.audit_log import AuditLog
from stages.core.study_file import load_study
from stages.reviewed import review_queue
from tests.conftest import write_study
from tests.review.conftest import ASKED, answer_of
from tests.slurm.slurm_harness import ROOT, slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture
def study(tmp_path):
    """The tiny study with a review, preprocessed by SLURM."""
    study = write_study(tmp_path)
    study.write_text(study.read_text().partition("tasks:")[0] + ASKED)
    defaults = {"partition": "main", "time_min": 10, "mem_gb": 2, "cpus": 1}
    cluster = {"defaults": defaults, "stages": {"preprocess": {}}}
    (tmp_path / "cluster.yaml").write_text(json.dumps(cluster))
    return study


def preprocess(study):
    """Run the workflow as far as preprocessing; returns its exit code and what it said."""
    where = ["--default-resources", f"run_on={study.parent / 'cluster.yaml'}"]
    command = ["snakemake", "--profile", "slurm", "--until", "preprocess", *where]
    done = subprocess.run(
        [*command, "--config", f"study={study}"], cwd=ROOT, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_a_study_that_awaits_readers_holds_no_node(study, outcome):
    """A study asks for a review: nobody has answered yet, then a reader has."""
    out, before = study.parent / "out", slurm("squeue", "-h", "-o", "%i")
    code, said = preprocess(study)
    assert code != 0 and "7 of 7 items await a reader" in said
    assert slurm("squeue", "-h", "-o", "%i") == before
    assert not (out / "jobs").exists() and not (out / "preprocess").exists()
    loaded = load_study(study)
    log = AuditLog(loaded.pseudonyms.study_folder)
    for item in review_queue(loaded):
        fields = ("content_sha256", "question", "round")
        given = {"item": item.code} | {name: getattr(item, name) for name in fields}
        log.append("anna", answer_of(answer="accept", codes=(), **given))
    code, said = preprocess(study)
    assert code == 0, said
    job = json.loads((out / "jobs/preprocess/job.json").read_text())["job"]
    assert slurm("sacct", "-nXP", "-j", job, "-o", "state") == "COMPLETED"
    outcome("no job while readers are awaited; after their answers preprocessing runs as one")
