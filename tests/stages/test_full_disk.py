"""A disk that fills up in the middle of a write: one sentence, nothing half done, and on it goes.

The disk is a small one in memory, in a namespace of its own, which needs no rights.
"""

import subprocess
import sys

import pytest

from ssl_pipeline.io.atomic import sha256_file
from stages.core.study_file import load_study

OWN = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
RUN = "{python} -m stages {stage} --config {study} 2>&1; echo code $?;"


def can_mount(folder):
    try:
        return subprocess.run([*OWN, f"mount -t tmpfs none {folder}"]).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def on_small_disk(study_file):
    """Runs stages of the tiny study, each with the disk at a size; gives what they said."""
    out = study_file.parent / "out"
    out.mkdir()
    if not can_mount(out):
        pytest.skip("This machine lets nobody mount a small disk, which `unshare` needs.")

    def run(*steps):
        script = f"mount -t tmpfs -o size=1m none {out};"
        for size, command in steps:
            script += f"mount -o remount,size={size} {out};"
            stage = RUN.format(python=sys.executable, stage=command, study=study_file)
            script += stage if " " not in command else command + ";"
            script += "echo ---;"
        done = subprocess.run([*OWN, script], capture_output=True, text=True)
        return [part.strip() for part in done.stdout.split("---\n")[: len(steps)]]

    return run


def test_preprocessing_stops_with_a_sentence_and_goes_on(on_small_disk, study_file):
    listed = f"find {study_file.parent}/out/preprocess -name '*.zarr' -o -name '.tmp*' | wc -l"
    _, first, left, again, verified = on_small_disk(
        ("1m", "inventory"),
        ("320k", "preprocess"),
        ("320k", listed),
        ("64m", "preprocess"),
        ("64m", "verify"),
    )
    assert "The disk is full, or the quota used up (" in first
    assert first.endswith("code 2")
    assert 0 < int(left) < 6
    assert "6 volumes stored" in again and "6 of them new" not in again
    assert "6 volumes and" in verified and "whole" in verified


def test_pretraining_goes_on_to_the_same_weights(on_small_disk, study_file, study, whole):
    copy, out = study_file.parent / "encoder.safetensors", study_file.parent / "out"
    _, full, done, _ = on_small_disk(
        ("9m", f"cp -r {study.folder}/. {out}"),
        ("9m", "pretrain"),
        ("900m", "pretrain"),
        ("900m", f"cp {out}/pretrain/encoder/encoder.safetensors {copy}"),
    )
    assert "The disk is full" in full and full.endswith("code 2")
    assert done.endswith("code 0")
    assert sha256_file(copy) == sha256_file(load_study(whole).encoder / "encoder.safetensors")
