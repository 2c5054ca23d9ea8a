"""Task models of the study that has run to its end."""

import csv
import shutil

import pytest
import torch

from ssl_pipeline import load_model
from ssl_pipeline.evaluation.adaptation import Full
from ssl_pipeline.export.stored_values import ScanHints
from ssl_pipeline.export.task_model.bundle import save_model
from stages.commands.predict import Models, predict_folder

MR = ScanHints(modality="MR")


@pytest.fixture(scope="session")
def finetuned(whole):
    """The folder of fine-tuned tasks."""
    return whole.parent / "out/finetune"


@pytest.fixture(scope="session")
def tissue(finetuned, tmp_path_factory):
    """The model of `tissue` with a bias that makes it predict classes; two steps taught it none."""
    folder = tmp_path_factory.mktemp("models") / "tissue"
    shutil.copytree(finetuned / "tissue/model", folder)
    model = load_model(folder)
    save_with_equal_biases(folder, model)
    return folder


def save_with_equal_biases(folder, model):
    network = model.predictor.networks[0]
    with torch.no_grad():
        for layer in network.seg_layers:
            layer.bias.zero_()
    save_model(folder, network, contract_of(model), model.training_features)


def save_constant(folder, model, outputs, task=None):
    """A model like `model` that gives the same outputs for every crop or voxel, before any softmax.

    Of `task`, where it is another; returns its folder.
    """
    manifest = model.manifest
    task = task or manifest.task
    with torch.random.fork_rng():
        network = task.build_network(manifest.model.build(), Full(), manifest.finetune)
    layer = network.seg_layers[0] if task.kind == "segmentation" else network.head[1]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor(outputs))
    save_model(folder, network, contract_of(model) | {"task": task}, model.training_features)
    return folder


def contract_of(model):
    """What `save_model` takes of the manifest of a model."""
    own = {"unlike_distance", "versions", "sha256", "format_version"}
    fields = set(type(model.manifest).model_fields) - own
    return {name: getattr(model.manifest, name) for name in fields}


def predict(folder, out, *models, device="cpu"):
    predict_folder(Models(models, device), folder, out, MR)
    return read_rows(out)


def read_rows(out):
    """The table of predictions in a folder."""
    with open(out / "predictions.csv") as file:
        return list(csv.DictReader(file))
