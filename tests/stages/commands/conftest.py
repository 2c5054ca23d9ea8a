"""Task models of the study that has run to its end."""

import csv
import shutil

import pytest
import torch

from ssl_pipeline import load_model
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


def contract_of(model):
    """What `save_model` takes of the manifest of a model."""
    own = {"unlike_distance", "versions", "sha256", "format_version"}
    fields = set(type(model.manifest).model_fields) - own
    return {name: getattr(model.manifest, name) for name in fields}


def predict(folder, out, *models, device="cpu"):
    predict_folder(Models(models, device), folder, out, MR)
    with open(out / "predictions.csv") as file:
        return list(csv.DictReader(file))
