"""Purged files are made again; those that cannot be are reported in one sentence."""

import shutil

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.training.metrics_log import read_metrics
from stages.core.pretraining_runs import run_folder
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from tests.conftest import write_study


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The tiny study, pretrained; copy its output before changing it."""
    study = load_study(write_study(tmp_path_factory.mktemp("purge")))
    for name in ("inventory", "preprocess", "pretrain"):
        run_stage(name, study, {})
    return study


@pytest.fixture
def purged(trained):
    """The same in its own place; put back afterwards."""
    kept = trained.folder.with_name("kept")
    shutil.copytree(trained.folder, kept, copy_function=shutil.copy2)
    yield trained
    shutil.rmtree(trained.folder)
    kept.rename(trained.folder)


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_volumes_that_are_gone_are_made_again_and_no_others(purged, capsys):
    volumes = purged.folder / "preprocess/volumes"
    one, other, *_ = sorted(volumes.iterdir())
    before, catalog = stamps(volumes), purged.folder / "preprocess/catalog.parquet"
    content, voxels = catalog.read_bytes(), (one / "c/0/0/0/0").read_bytes()
    (one / "c/0/0/0/0").unlink()
    (other / "zarr.json").unlink()
    (purged.folder / "pretrain/encoder/encoder.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"Files of the stage preprocess are missing or damaged \(2 files"
    ):
        run_stage("pretrain", purged, {})
    run_stage("preprocess", purged, {})
    assert "6 volumes stored, 2 of them new" in capsys.readouterr().out
    assert catalog.read_bytes() == content and (one / "c/0/0/0/0").read_bytes() == voxels
    changed = {path for path, stamp in stamps(volumes).items() if before[path] != stamp}
    assert {path.relative_to(volumes).parts[0] for path in changed} == {one.name, other.name}
    run_stage("pretrain", purged, {})


def test_an_encoder_that_is_gone_is_written_again_from_the_checkpoint(purged):
    weights = purged.folder / "pretrain/encoder/encoder.safetensors"
    log = run_folder(purged) / "metrics.jsonl"
    before, steps = weights.read_bytes(), read_metrics(log)
    shutil.rmtree(weights.parent)
    run_stage("pretrain", purged, {})
    assert weights.read_bytes() == before and read_metrics(log) == steps


def test_a_finished_pretraining_needs_neither_checkpoints_nor_volumes(purged, capsys):
    shutil.rmtree(run_folder(purged) / "checkpoints")
    shutil.rmtree(purged.folder / "preprocess/volumes")
    run_stage("pretrain", purged, {})
    assert "pretrain: nothing to do" in capsys.readouterr().out


def test_a_checkpoint_that_is_gone_is_no_silent_start_from_the_first_step(purged):
    run = run_folder(purged)
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    (purged.folder / "pretrain/run.json").unlink()
    with pytest.raises(UserError, match="logged 6 steps and holds no complete checkpoint") as said:
        run_stage("pretrain", purged, {})
    assert f"{run} has" in str(said.value) and "remove the folder to start anew" in str(said.value)
    shutil.rmtree(run)
    run_stage("pretrain", purged, {})
