"""The door as a user opens it, and one small study that went through it whole."""

import os
import subprocess
import sys

import pytest

from tests.conftest import write_study

ENV = {**os.environ, "PYTHONWARNINGS": "default"}


def door(*words, **more):
    command = [sys.executable, "-m", "stages", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, **more)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The tiny study, all of it, by hand; do not change it."""
    study = write_study(tmp_path_factory.mktemp("whole"))
    for words in (
        ["inventory"], ["preprocess"], ["pretrain"], ["probe", "task=side"],
        ["finetune", "task=side"], ["finetune", "task=tissue"], ["report"],
    ):  # fmt: skip
        done = door(words[0], "--config", study, *words[1:])
        assert done.returncode == 0, done.stdout + done.stderr
    return study
