"""`predict` on a full disk, short of memory, killed, or with models that do not fit."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ssl_pipeline import load_model
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.manifest import SELF_TEST_FILE
from ssl_pipeline.export.task_model.bundle import save_model
from ssl_pipeline.export.task_model.manifest import MODEL_MANIFEST
from ssl_pipeline.io.atomic import sha256_file
from stages.commands.predict import Models, predict_folder
from stages.core.process import USER_EXIT, exit_code_of
from tests.stages.commands.conftest import MR, contract_of, predict

MEMORY_BYTES = 150 * 2**20  # the voxels of the large scan are more in float32


@pytest.fixture
def scans(tmp_path):
    """A folder of two scans: a smooth one, and behind it a noisy one."""
    folder, rng = tmp_path / "scans", np.random.default_rng(0)
    folder.mkdir()
    waves = np.sin(np.indices((32, 32, 32)) / 5).sum(axis=0)
    noise = rng.normal(size=waves.shape)
    for name, values in (("a", waves), ("b", waves + noise)):
        image = nib.Nifti1Image((1000 + 200 * values).astype(np.int16), np.eye(4))
        nib.save(image, folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def limited():
    """Sets a limit of this process, until the test ends or it is lifted."""
    before = {}

    def limit(what, value):
        before.setdefault(what, resource.getrlimit(what))
        resource.setrlimit(what, (value, before[what][1]))

    yield limit
    for what, both in before.items():
        resource.setrlimit(what, both)


def known_scans(out):
    """Finished scans that a stopped run has written down, each as a whole line."""
    path = out / "predictions.csv.unfinished"
    return re.findall(r"{.*}\n", path.read_text()) if path.exists() else []


def test_a_full_disk_stops_with_a_sentence_and_costs_no_finished_scan(
    tissue, scans, limited, tmp_path, capsys
):
    out, whole = tmp_path / "out", tmp_path / "whole"
    predict(scans, whole, tissue)
    a, b = (max(path.stat().st_size for path in whole.glob(f"{name}.*")) for name in "ab")
    assert a < b - 1

    def work():
        predict_folder(Models([tissue], "cpu"), scans, out, MR)
        return 0

    limited(resource.RLIMIT_FSIZE, b - 1)
    assert exit_code_of("predict", work) == USER_EXIT
    limited(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    assert "predict: The disk is full, or the quota used up" in capsys.readouterr().err
    assert len(known_scans(out)) == 1
    assert not [path.name for path in out.iterdir() if path.name.startswith((".", "b.nii"))]
    assert exit_code_of("predict", work) == 0
    assert "1 scan of an earlier start known" in capsys.readouterr().out
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in whole.iterdir()
    }


def test_a_scan_without_enough_memory_costs_its_own_row(tissue, scans, limited, tmp_path):
    header = nib.Nifti1Header()
    header.set_data_shape((1000, 1000, 1000))
    header.set_data_dtype(np.int16)
    header.set_sform(np.eye(4), code="scanner")
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (scans / "large.nii").write_bytes(header.binaryblock + bytes(4))
    os.truncate(scans / "large.nii", 352 + 2 * 1000**3)  # a file with a hole, which takes no room
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limited(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY_BYTES)
    rows = {row["path"]: row["error"] for row in predict(scans, tmp_path / "out", tissue)}
    assert rows["large.nii"] == "large.nii needs more memory than there is."
    assert rows["a.nii.gz"] == rows["b.nii.gz"] == ""


def test_a_killed_run_goes_on_with_the_next_scan(tissue, scans, tmp_path, capsys):
    out = tmp_path / "out"
    command = (sys.executable, "-m", "stages", "predict", tissue, scans, "--out", out)
    # No fork of this process: locks that its threads hold would stay closed in the child.
    with subprocess.Popen([*map(str, command), "--modality", "MR"]) as process:
        while not known_scans(out) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert not (out / "predictions.csv").exists()
    rows = predict(scans, out, tissue)
    assert "1 scan of an earlier start known" in capsys.readouterr().out
    assert [row["path"] for row in rows] == ["a.nii.gz", "b.nii.gz"]
    assert rows == predict(scans, tmp_path / "again", tissue)


def with_manifest(folder, tissue, **changes):
    """The model of `tissue` in another folder, with changes of its manifest."""
    model = load_model(tissue)
    contract = contract_of(model) | changes
    save_model(folder, model.predictor.networks[0], contract, model.training_features)
    return folder


def test_a_network_that_gives_other_outputs_than_when_it_was_saved_is_refused(tissue, tmp_path):
    folder = shutil.copytree(tissue, tmp_path / "other")
    stored = load_file(folder / SELF_TEST_FILE)
    save_file({**stored, "outputs": stored["outputs"] + 0.01}, folder / SELF_TEST_FILE)
    manifest = json.loads((folder / MODEL_MANIFEST).read_text())
    manifest["sha256"][SELF_TEST_FILE] = sha256_file(folder / SELF_TEST_FILE)
    (folder / MODEL_MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        UserError, match="gives other outputs for its stored input than when it was"
    ):
        load_model(folder)


def test_a_model_of_a_precision_that_the_device_lacks_predicts_in_full(tissue, scans, tmp_path):
    finetune = load_model(tissue).manifest.finetune
    outs = []
    for precision in ("fp16", "fp32"):
        changed = finetune.model_copy(update={"precision": precision})
        model = with_manifest(tmp_path / f"model-{precision}", tissue, finetune=changed)
        outs.append(tmp_path / precision)
        predict(scans, outs[-1], model)
    first, second = ({path.name: path.read_bytes() for path in out.iterdir()} for out in outs)
    assert first == second and "a.nii.gz" in first


def test_a_model_of_ct_that_is_given_mr_says_so(tissue, scans, tmp_path):
    summary = load_model(tissue).manifest.training_summary | {"modalities": ["CT"]}
    ct = with_manifest(tmp_path / "ct", tissue, training_summary=summary)
    with pytest.raises(UserError, match="trained on CT, and the scan is MR"):
        predict(scans, tmp_path / "out", ct)


def test_classes_keep_the_order_of_the_outputs_and_models_of_another_are_no_ensemble(
    tissue, whole, tmp_path
):
    plain = load_model(tissue)
    task = plain.manifest.task
    turned = task.model_copy(update={"classes": {2: "bright", 1: "dark"}})
    assert turned.classes == task.classes, "as mappings they are equal"
    folder = with_manifest(tmp_path / "turned", tissue, task=turned)
    scan = whole.parent / "raw/images/person4.nii.gz"
    labels, other = (
        m.predict(scan, "MR").prediction.label_map for m in (plain, load_model(folder))
    )
    assert np.array_equal(other, np.array([0, 2, 1])[labels]) and labels.any()
    with pytest.raises(UserError, match="have different classes"):
        load_model(tissue, folder)
