"""Real nnU-Net starts from an exported encoder, in its own environment."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from ssl_pipeline import load_encoder
from ssl_pipeline.export.formats.nnunet import CHECKPOINT, DATASET, PLANS
from ssl_pipeline.models import ResEnc
from stages.commands.export import export_to_format
from tests.bench import nnunet
from tests.export.conftest import save_random_bundle

pytestmark = [
    pytest.mark.nnunet,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not nnunet.ENVIRONMENT.exists(), reason="make nnunet-env makes it"),
]

CROP = (16, 24, 32)
CONFIGURATION = "3d_fullres_mr"
# What nnU-Net's own encoder computes of crops, after its own loader.
ENCODE = f"""
import sys, torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.run.run_training import get_trainer_from_args
trainer = get_trainer_from_args(
    "{nnunet.DATASET_ID}", "{CONFIGURATION}", "all", "{nnunet.TRAINER}", "{PLANS}",
    device=torch.device("cpu"),
)
trainer.initialize()
load_pretrained_weights(trainer.network, sys.argv[1])
with torch.inference_mode():
    torch.save(trainer.network.encoder(torch.load(sys.argv[2])), sys.argv[3])
"""


def write_scans(raw):
    """Three scans of noise with a bright box, which is their class, and one to predict."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        label = np.zeros((36, 28, 20), np.uint8)
        label[8:20, 8:20, 6:14] = 1
        image = rng.normal(size=label.shape).astype(np.float32) + 3 * label
        folder = raw / ("imagesTs" if name == "d" else "imagesTr")
        nnunet.save(nib.Nifti1Image(image, np.eye(4)), folder / f"{name}_0000.nii.gz")
        if name != "d":
            nnunet.save(nib.Nifti1Image(label, np.eye(4)), raw / f"labelsTr/{name}.nii.gz")
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "box": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(content))


def test_nnunet_trains_and_predicts_from_an_exported_encoder(tmp_path):
    """By the commands of the documentation."""
    peer = nnunet.NnUNet(tmp_path)
    write_scans(peer.raw)
    model = ResEnc(patch_voxels=(4, 8, 16))
    bundle = save_random_bundle(tmp_path / "bundle", model=model, crop=CROP)
    export_to_format(bundle, "nnunet", tmp_path / "preprocessed" / DATASET)
    weights = str(tmp_path / "preprocessed" / DATASET / CHECKPOINT)
    one = {"BENCH_ITERATIONS": "1"}
    number, plans = nnunet.DATASET_ID, ("-p", PLANS, "-tr", nnunet.TRAINER)
    peer.run("nnUNetv2_extract_fingerprint", "-d", number, "-np", "1")
    peer.run("nnUNetv2_plan_experiment", "-d", number)
    peer.run(
        *("nnUNetv2_move_plans_between_datasets", "-s", DATASET, "-t", number),
        *("-sp", PLANS, "-tp", PLANS),
    )
    preprocess = ("-plans_name", PLANS, "-c", CONFIGURATION, "-np", "1")
    peer.run("nnUNetv2_preprocess", "-d", number, *preprocess)

    crops, ours = torch.randn(1, 1, *CROP), load_encoder(bundle).model
    torch.save(crops, tmp_path / "crops.pt")
    paths = (weights, str(tmp_path / "crops.pt"), str(tmp_path / "maps.pt"))
    peer.run("python", "-c", ENCODE, *paths, **one)
    with torch.inference_mode():
        expected = ours.forward_intermediates(crops, torch.ones(1, 3))
    for found, each in zip(torch.load(paths[2], weights_only=True), expected, strict=True):
        assert torch.allclose(found, each, atol=1e-5)

    start = ("-pretrained_weights", weights, "-device", "cpu")
    train = ("nnUNetv2_train", number, CONFIGURATION, "all", *plans, *start)
    peer.run(*train, nnUNet_n_proc_DA="0", **one)
    assert "Loading pretrained weights from file" in (tmp_path / "log.txt").read_text()
    folders = ("-i", str(peer.raw / "imagesTs"), "-o", str(tmp_path / "out"))
    where = ("-d", number, "-c", CONFIGURATION, "-f", "all", "-device", "cpu")
    peer.run("nnUNetv2_predict", *folders, *where, *plans, "-npp", "1", "-nps", "1", **one)
    assert nib.load(tmp_path / "out/d.nii.gz").shape == (36, 28, 20)
