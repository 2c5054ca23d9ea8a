"""The command line as a user runs it, and one small study that has run to its end."""

import fcntl
import os
import shutil
import subprocess
import sys

import pytest

from tests.command_line import run_forked
from tests.conftest import write_study

ENV = {**os.environ, "PYTHONWARNINGS": "default"}


def run_cli(*words, before=(), env=ENV):
    """Run a command; in a new interpreter where something goes before it."""
    if not before:
        return run_forked("stages", words, env=env)
    command = [*before, sys.executable, "-m", "stages", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env)


@pytest.fixture(scope="session")
def whole(tmp_path_factory, worker_id):
    """The tiny study, all of it, by hand; do not change it.

    Whichever worker comes first makes it for all.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "whole"
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "out/report/report.html").exists():
            run_whole_study(folder)
    return folder / "tiny.yaml"


def run_whole_study(folder):
    folder.mkdir()
    study = write_study(folder)
    for words in (
        ["inventory"], ["inventory_page"], ["preprocess"], ["pretrain"], ["probe", "task=side"],
        ["finetune", "task=side"], ["finetune", "task=tissue"], ["report"],
    ):  # fmt: skip
        done = run_cli(words[0], "--config", study, *words[1:])
        assert done.returncode == 0, done.stdout + done.stderr


def copy_study(study, folder):
    """A study with all that is beside it, in another folder that is not there yet."""
    shutil.copytree(study.parent, folder)
    for file in folder.glob("*.yaml"):
        file.write_text(file.read_text().replace(str(study.parent), str(folder)))
    return folder / study.name


def unrun_study(study, folder):
    """A study with the same raw scans, and an output folder where nothing has run yet."""
    shutil.copy(study.parent / "test.txt", folder)
    output = f"output: {study.parent}/out"
    assert output in study.read_text()
    unrun = folder / study.name
    unrun.write_text(study.read_text().replace(output, f"output: {folder}/out"))
    return unrun


@pytest.fixture
def copied(whole, tmp_path):
    """The whole study in a folder of its own."""
    return copy_study(whole, tmp_path / "copied")
