"""A bundle of a random encoder, as pretraining leaves them."""

import numpy as np
import pytest
import torch

from ssl_pipeline.evaluation.adaptation.full import Full
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.tasks import Segmentation
from ssl_pipeline.export.bundle import save_bundle
from ssl_pipeline.export.task_model.bundle import save_model
from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.volumes.quality_control import QualityThresholds


def save_random_bundle(folder, example=None, *, model=None, crop=(16, 16, 16), **more):
    """Write a bundle of random weights; returns its folder."""
    model, preprocess = model or ViT(), Preprocess(foreground="all")
    encoder = random_encoder(model, 7)
    save_bundle(folder, encoder, model, preprocess, crop, {"steps": 0}, example, **more)
    return folder


def save_random_model(
    folder, *, model=None, modalities=("CT",), crop=(16, 24, 32), calibration=None, **settings
):
    """Write a task model of random weights that predicts all of its classes; returns its folder."""
    model = model or ResEnc(patch_voxels=(4, 4, 4))
    task = Segmentation(title="Parts", label="parts", classes={3: "bright", 7: "dark"})
    finetune = Finetune(steps=1, batch_size=2, precision="fp32", **settings).for_methods(Full())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = task.build_network(model.build(), Full(), finetune)
    with torch.no_grad():
        for layer in network.seg_layers:
            layer.bias.zero_()
    contract = {
        "preprocess": Preprocess(foreground="all"),
        "quality": QualityThresholds(),
        "stored_values": (),
        "task": task,
        "model": model,
        "finetune": finetune,
        "crop_voxels": crop,
        "training_summary": {"subjects": 1, "scans": 1, "modalities": list(modalities)},
        "split": "val",
        "n_scored_subjects": 1,
        "confidence": 0.95,
        "scores": (),
        "calibration": calibration,
    }
    save_model(folder, network, contract, np.ones((1, model.width), np.float32))
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return save_random_bundle(tmp_path_factory.mktemp("bundle") / "encoder")
