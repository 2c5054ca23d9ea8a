"""Cleaning: what goes is said before it does, and what the pipeline did not make stays."""

import fcntl
import os
import pty
import shutil
import subprocess
import sys

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import write_text
from stages.commands.clean import clean_study
from stages.core.pretraining_runs import run_folder
from stages.core.runner import run_stage
from stages.core.study_file import load_study

STAGES = [
    ("inventory", {}), ("preprocess", {}), ("pretrain", {}), ("probe", {"task": "side"}),
    ("finetune", {"task": "side"}), ("finetune", {"task": "tissue"}), ("report", {}),
]  # fmt: skip
FOREIGN = [
    *("notes.txt", "pretrain/notes.txt", "preprocess/volumes/mine.zarr/data", "mine/a.log"),
    *("logs/my_nohup.log", "logs/pretrain-notes.log", "logs/mine.progress.json"),
    *("jobs/mine/job.json", "pretrain/runs/mine/metrics.jsonl", "pretrain/runs/notes.txt"),
    "pretrain/runs/0123456789ab/checkpoints/step-best.pt",
]


@pytest.fixture
def file(copied):
    """The whole study, with files that are no business of ours."""
    for name in FOREIGN:
        write_text(copied.parent / "out" / name, "mine")
    return copied


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def edit(file, old, new):
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_all_that_the_study_made_goes_and_nothing_else(file, capsys):
    raw = files(file.parent / "raw")
    clean_study(load_study(file), remove_all=True, assume_yes=True)
    assert files(file.parent / "out") == set(FOREIGN)
    assert files(file.parent / "raw") == raw
    assert "stays, for it holds files that no stage wrote" in capsys.readouterr().out
    shutil.rmtree(file.parent / "out")
    run_stage("inventory", load_study(file), {})
    clean_study(load_study(file), remove_all=True, assume_yes=True)
    assert not (file.parent / "out").exists()


def test_what_is_stale_goes_and_nothing_is_done_again(file, capsys):
    out, earlier = file.parent / "out", run_folder(load_study(file))
    clean_study(load_study(file), remove_all=False, assume_yes=True)
    said = capsys.readouterr().out
    assert "checkpoints before the newest" in said and "2 files removed" in said
    edit(file, "  steps: 6", "  steps: 8")
    edit(file, f"path: {file.parent}/raw/images", f"path: {file.parent}/fewer")
    shutil.copytree(file.parent / "raw/images", file.parent / "fewer")
    (file.parent / "fewer/person0.nii.gz").unlink()
    study = load_study(file)
    for name in ("inventory", "preprocess"):
        run_stage(name, study, {})
    clean_study(
        study, remove_all=False, assume_yes=True
    )  # the encoder still comes from the earlier run
    assert earlier.exists() and len(list(out.glob("preprocess/volumes/*/zarr.json"))) == 5
    for name, wildcards in STAGES[2:4]:
        run_stage(name, study, wildcards)
    torn = out / "preprocess/volumes/.tmp-abc.zarr-0123abcd/zarr.json"
    write_text(torn, "{}")
    before = files(out)
    capsys.readouterr()
    clean_study(study, remove_all=False, assume_yes=True)
    said = capsys.readouterr().out
    gone = before - files(out)
    assert any(name.startswith(f"pretrain/runs/{earlier.name}/") for name in gone)
    assert any(name.startswith("finetune/tissue/predictions/full-pretrained") for name in gone)
    assert not any(name.startswith("probe/") or "pixels" in name for name in gone)
    assert not torn.parent.exists() and not earlier.exists()
    assert set(FOREIGN) <= files(out)
    for reason in (
        "interrupted writes",
        "other settings or cohorts",
        "evaluation of other encoders",
    ):
        assert reason in said
    for name, wildcards in STAGES[:4]:
        run_stage(name, study, wildcards)
    assert capsys.readouterr().out.count("nothing to do") == 4


def test_where_slurm_cannot_be_asked_a_study_with_jobs_is_left_alone(file, monkeypatch):
    write_text(file.parent / "out/jobs/pretrain/job.json", "{}")
    monkeypatch.setenv("PATH", str(file.parent))
    with pytest.raises(UserError, match="There is no squeue here"):
        clean_study(load_study(file), remove_all=False, assume_yes=True)


def test_a_stage_that_runs_is_left_alone(file):
    with open(file.parent / "out/pretrain/.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = files(file.parent / "out")
        with pytest.raises(UserError, match="The stage pretrain already runs"):
            clean_study(load_study(file), remove_all=True, assume_yes=True)
    assert files(file.parent / "out") == before


def test_nothing_is_removed_without_confirmation(file):
    command = [sys.executable, "-m", "stages", "clean", "--all", "--config", str(file)]
    before = files(file.parent / "out")
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "add --yes" in done.stderr and "all of probe" in done.stdout
    assert files(file.parent / "out") == before
    for answer, gone in ((b"n\n", False), (b"y\n", True)):
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        done = subprocess.run(command, stdin=theirs, capture_output=True, text=True)
        os.close(ours)
        os.close(theirs)
        assert done.returncode == 0, done.stderr
        assert (files(file.parent / "out") == set(FOREIGN)) == gone
