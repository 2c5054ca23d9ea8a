"""A temperature finds how sure a classifier may be, and changes no prediction."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.prediction.calibration import (
    expected_error,
    fit_temperature,
    scale_probabilities,
)
from ssl_pipeline.evaluation.runner.calibration import calibrate
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.tasks.classification import Classification
from ssl_pipeline.preprocess.prepare import PreparedVolume
from tests.evaluation.conftest import build_test_encoder

CORNER = Classification(title="Corner", target="corner", classes={0: "no", 1: "yes"})


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def drawn():
    """Logits of 4,000 scans, and classes that are drawn from their softmax."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    targets = np.array([rng.choice(3, p=row) for row in softmax(logits)])
    return logits, targets


@pytest.mark.parametrize("factor", [3.0, 1.0, 0.4])
def test_the_temperature_by_which_logits_were_multiplied_is_found_again(drawn, factor):
    logits, targets = drawn
    probability = softmax(factor * logits)
    temperature = fit_temperature(probability, targets)
    assert temperature == pytest.approx(factor, rel=0.1)
    scaled = scale_probabilities(probability, temperature)
    np.testing.assert_allclose(scaled, softmax(factor * logits / temperature), atol=1e-3)
    assert expected_error(scaled, targets) < 0.02
    if factor != 1:
        assert expected_error(probability, targets) > 0.08


def test_the_most_probable_class_stays_and_certainty_stays_finite():
    probability = np.array([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]])
    for temperature in (0.05, 1.0, 20.0):
        scaled = scale_probabilities(probability, temperature)
        assert np.isfinite(scaled).all() and np.allclose(scaled.sum(axis=1), 1)
        assert (scaled.argmax(axis=1) == [0, 0, 0]).all()


@pytest.fixture(scope="module")
def too_sure(planted):
    """A network that knows nothing and is sure of it, and its settings."""
    section = Finetune(steps=1, batch_size=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_test_encoder("pretrained", 0)
        network = CORNER.build_network(encoder, section.methods[0], section)
    with torch.no_grad():
        network.head[1].weight.mul_(30)
    return network, section


def with_val(planted):
    """The planted study with ten subjects of the split val, four of train and four of test."""
    subjects = list(dict.fromkeys(entry.subject for entry in planted.catalog.entries))
    split = {s: ("train", "test", "val")[(n >= 4) + (n >= 8)] for n, s in enumerate(subjects)}
    entries = (replace(e, split=split[e.subject]) for e in planted.catalog.entries)
    return replace(planted.catalog, entries=tuple(entries))


def test_a_network_that_is_too_sure_is_calibrated_on_the_split_val(planted, too_sure, tmp_path):
    network, section = too_sure
    context = planted.context(tmp_path, catalog=with_val(planted))
    found = calibrate(TaskRunner(CORNER, context), network, section)
    assert found.n_subjects == 10 and found.temperature > 1
    assert found.error_after < found.error_before

    predictor = CORNER.predictor([network], section, (16, 16, 16))
    scored = [entry for entry in context.catalog.entries if entry.split == "test"]
    targets = np.array([int(entry.targets["corner"]) for entry in scored])
    volumes = [PreparedVolume(planted.reader.read_volume(e.id), e.meta) for e in scored]
    plain = np.array([list(predictor.predict(each).values.values()) for each in volumes])
    assert found.scored_error_before == pytest.approx(expected_error(plain, targets))
    predictor.temperatures = [found.temperature]
    scaled = np.array([list(predictor.predict(each).values.values()) for each in volumes])
    assert found.scored_error_after == pytest.approx(expected_error(scaled, targets))
    assert (scaled.max(axis=1) < plain.max(axis=1)).all()
    entropy = -(scaled * np.log(scaled)).sum(axis=1)
    np.testing.assert_allclose([predictor.entropy(each) for each in volumes], entropy, rtol=1e-5)


def test_without_ten_subjects_to_ask_nothing_is_calibrated(planted, too_sure, tmp_path):
    runner = TaskRunner(CORNER, planted.context(tmp_path))
    assert calibrate(runner, *too_sure) is None
