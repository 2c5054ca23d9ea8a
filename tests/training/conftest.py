"""Fixtures of the tests of this folder."""

import pytest

from tests.training.small_trainer import small_trainer


@pytest.fixture
def start(study):
    """Builds a small run in a folder, on the volumes of the tiny study; see `small_trainer`."""
    return lambda folder, *args, **settings: small_trainer(folder, study.folder, *args, **settings)
