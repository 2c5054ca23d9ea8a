"""A bundle of a random encoder, as pretraining leaves them."""

import pytest

from ssl_pipeline.export.bundle import save_bundle
from ssl_pipeline.models import ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.preprocess.config import Preprocess


def save_random_bundle(folder, example=None, *, model=None, crop=(16, 16, 16), stored_values=()):
    """Write a bundle of random weights; returns its folder."""
    model, preprocess = model or ViT(), Preprocess(foreground="all")
    encoder = random_encoder(model, 7)
    trained = {"steps": 0}
    save_bundle(
        folder, encoder, model, preprocess, crop, trained, example, stored_values=stored_values
    )
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return save_random_bundle(tmp_path_factory.mktemp("bundle") / "encoder")
