"""The door as a user opens it, and one small study that went through it whole."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import write_study

ENV = {**os.environ, "PYTHONWARNINGS": "default"}
OFFLINE = ["unshare", "--map-root-user", "--net"]  # before a command: it has no network


def door(*words, before=(), **more):
    command = [*before, sys.executable, "-m", "stages", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, **{"env": ENV, **more})


def can_be_offline():
    """Whether this machine lets a process do without a network."""
    try:
        return subprocess.run([*OFFLINE, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The tiny study, all of it, by hand, without a network if possible; do not change it."""
    study = write_study(tmp_path_factory.mktemp("whole"))
    before = OFFLINE if can_be_offline() else ()
    for words in (
        ["inventory"], ["preprocess"], ["pretrain"], ["probe", "task=side"],
        ["finetune", "task=side"], ["finetune", "task=tissue"], ["report"],
    ):  # fmt: skip
        done = door(words[0], "--config", study, *words[1:], before=before)
        assert done.returncode == 0, done.stdout + done.stderr
    return study


@pytest.fixture
def copied(whole, tmp_path):
    """The whole study in a folder of its own."""
    for name in ("raw", "out", "private"):
        shutil.copytree(whole.parent / name, tmp_path / name)
    shutil.copy(whole.parent / "test.txt", tmp_path)
    study = tmp_path / "tiny.yaml"
    study.write_text(whole.read_text().replace(str(whole.parent), str(tmp_path)))
    return study
