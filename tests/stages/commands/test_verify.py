"""Damage is named, and what is damaged is made again, alone and equal."""

import os
import subprocess
import sys

import pytest

from ssl_pipeline.store.layout import VOXEL_FILE
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from tests.stages.conftest import run_cli


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_whole_is_left_alone(whole):
    done = run_cli("verify", "--config", whole)
    assert done.returncode == 0 and "6 volumes and" in done.stdout and "whole" in done.stdout


def test_an_archive_that_cannot_be_written_is_verified(study_file):
    run_stage("inventory", load_study(study_file), {})
    folder = study_file.parent
    script = (
        'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && '
        f'exec {sys.executable} -m stages verify --config "$1"'
    )
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*alone, 'mount --bind "$0" "$0"', folder], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a folder")
    done = subprocess.run(
        [*alone, script, folder, study_file], capture_output=True, text=True, env=os.environ
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "verify: 0 volumes and" in done.stdout


def test_a_damaged_volume_is_named_and_made_again_alone(copied):
    folder = load_study(copied).folder
    volumes = sorted((folder / "preprocess/volumes").glob("*.zarr"))
    before = {path: (path / VOXEL_FILE).read_bytes() for path in volumes}
    times = {path: (path / VOXEL_FILE).stat().st_mtime_ns for path in volumes}
    flip_a_bit(volumes[2] / VOXEL_FILE)
    damaged = run_cli("verify", "--config", copied)
    assert damaged.returncode == 2
    assert f"{volumes[2] / VOXEL_FILE} differs from what was written." in damaged.stdout
    assert "1 damaged part of 6 volumes" in damaged.stderr and "--remove" in damaged.stderr
    assert volumes[2].exists()
    assert run_cli("verify", "--config", copied, "--remove").returncode == 0
    assert not volumes[2].exists()
    done = run_cli("preprocess", "--config", copied)
    assert "6 volumes stored, 1 of them new" in done.stdout
    assert {path: (path / VOXEL_FILE).read_bytes() for path in volumes} == before
    same = [path for path in volumes if (path / VOXEL_FILE).stat().st_mtime_ns == times[path]]
    assert len(same) == 5
    assert run_cli("verify", "--config", copied).returncode == 0
    assert "nothing to do" in run_cli("pretrain", "--config", copied).stdout


def test_a_damaged_encoder_is_named_and_made_again_equal(copied):
    encoder = load_study(copied).folder / "pretrain/encoder/encoder.safetensors"
    before = encoder.read_bytes()
    flip_a_bit(encoder)
    assert "encoder.safetensors differs" in run_cli("verify", "--config", copied).stdout
    assert run_cli("verify", "--config", copied, "--remove").returncode == 0
    assert run_cli("pretrain", "--config", copied).returncode == 0
    assert encoder.read_bytes() == before
