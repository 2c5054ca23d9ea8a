"""A temperature finds how sure a model may be of scans or voxels, and changes no prediction."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.source_grid import Slab
from ssl_pipeline.evaluation.data.voxel_sample import (
    MAX_VOXELS,
    draw_voxels,
    sampled_probabilities,
)
from ssl_pipeline.evaluation.decoders.light import Light
from ssl_pipeline.evaluation.prediction.calibration import (
    expected_error,
    fit_temperature,
    scale_probabilities,
)
from ssl_pipeline.evaluation.runner.calibration import calibrate
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.tasks import Classification, Segmentation
from ssl_pipeline.preprocess.prepare import PreparedVolume
from tests.evaluation.conftest import build_test_encoder

CORNER = Classification(title="Corner", target="corner", classes={0: "no", 1: "yes"})
VOXELS = Segmentation(title="Voxels", label="blobs", classes={3: "bright", 5: "dark"})


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
    for bins, rows in ((found.scored_bins_before, plain), (found.scored_bins_after, scaled)):
        confidence, accuracy, number = np.array(bins).T
        assert number.sum() == len(rows) and (np.diff(confidence) >= 0).all()
        assert confidence @ number / len(rows) == pytest.approx(rows.max(axis=1).mean())
        hits = (rows.argmax(axis=1) == targets).mean()
        assert accuracy @ number / len(rows) == pytest.approx(hits)
    entropy = -(scaled * np.log(scaled)).sum(axis=1)
    np.testing.assert_allclose([predictor.entropy(each) for each in volumes], entropy, rtol=1e-5)


def test_without_ten_subjects_to_ask_nothing_is_calibrated(planted, too_sure, tmp_path):
    runner = TaskRunner(CORNER, planted.context(tmp_path))
    assert calibrate(runner, *too_sure) is None


def test_voxels_are_drawn_about_what_is_labelled_and_none_that_is_ignored():
    indices = np.zeros((60, 50, 40), np.uint8)
    indices[30:34, 20:24, 20:24], indices[:, :, 22] = 1, 255
    chosen = draw_voxels(indices, (2.0, 2.5, 5.0), np.random.default_rng(0))
    places = np.argwhere(chosen)
    assert places.min(axis=0).tolist() == [25, 16, 18]
    assert places.max(axis=0).tolist() == [38, 27, 25]
    assert not (places[:, 2] == 22).any()
    assert chosen.sum() == 14 * 12 * 7  # all that there are
    empty = draw_voxels(np.zeros_like(indices), (1.0, 1.0, 1.0), np.random.default_rng(0))
    assert empty.sum() == MAX_VOXELS


def test_probabilities_of_drawn_voxels_are_those_beside_their_truth(planted):
    """Probabilities that say which voxel they are of come back beside that voxel's class."""
    meta = planted.catalog.entries[0].meta
    number = np.arange(np.prod(meta.shape), dtype=np.float32).reshape(meta.shape) / 1e5
    truth = np.random.default_rng(0).integers(0, 3, meta.source_shape).astype(np.uint8)
    chosen = np.zeros(meta.source_shape, bool)
    chosen[3:9:2, 5:8, 10:12] = True
    slabs = (Slab(z, number[None, z : z + 5]) for z in range(0, meta.shape[0], 5))
    rows, targets = sampled_probabilities(slabs, meta, truth, chosen)
    to_stored = np.linalg.inv(np.array(meta.affine)) @ np.array(meta.source_affine)
    pairs = set()
    for place in np.argwhere(chosen):
        x, y, z = np.rint(to_stored[:3, :3] @ place + to_stored[:3, 3]).astype(int)
        pairs.add((round(float(number[z, y, x]), 4), int(truth[tuple(place)])))
    found = [
        (round(float(row), 4), int(target)) for (row,), target in zip(rows, targets, strict=True)
    ]
    assert len(found) == chosen.sum() and set(found) == pairs


@pytest.fixture(scope="module")
def voxels_too_sure(planted):
    """A segmentation network that knows nothing and is sure of it, and its settings."""
    section = Finetune(steps=1, batch_size=4, overlap=0, decoder=Light())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_test_encoder("pretrained", 0)
        network = VOXELS.build_network(encoder, section.methods[0], section)
    with torch.no_grad():
        network.seg_layers[0].weight.mul_(30)
        network.seg_layers[0].bias.zero_()
    return network, section


def test_voxels_of_a_network_that_is_too_sure_are_calibrated_and_keep_their_class(
    single, voxels_too_sure, tmp_path
):
    network, section = voxels_too_sure
    runner = TaskRunner(VOXELS, single.context(tmp_path, catalog=with_val(single)))
    found = calibrate(runner, network, section)
    assert found.n_subjects == 10 and found.temperature > 1
    assert found.error_after < found.error_before
    assert found.scored_error_after < found.scored_error_before
    (before, right, number), (after, _, _) = (
        np.array(bins).T for bins in (found.scored_bins_before, found.scored_bins_after)
    )
    assert before[-1] > right[-1] and after.mean() < before.mean(), "it was too sure"
    error = (np.abs(before - right) * number).sum() / number.sum()
    assert error == pytest.approx(found.scored_error_before)

    predictor = VOXELS.predictor([network], section, (16, 16, 16))
    entry = single.catalog.entries[0]
    stored = PreparedVolume(single.reader.read_volume(entry.id), entry.meta)
    plain = predictor.predict(stored)
    predictor.temperatures = [found.temperature]
    scaled = predictor.predict(stored)
    assert np.array_equal(plain.label_map, scaled.label_map)
    for name in ("bright", "dark"):
        assert plain.values[f"{name} (ml)"] == scaled.values[f"{name} (ml)"] > 0
        key = f"{name} (mean probability)"
        assert 1 / 3 < scaled.values[key] < plain.values[key] <= 1


def test_scans_that_lack_a_class_that_was_not_annotated_calibrate_nothing(
    planted, voxels_too_sure, tmp_path
):
    task = VOXELS.model_copy(
        update={"missing_class_means": "not annotated", "classes": {3: "bright", 9: "unknown"}}
    )
    runner = TaskRunner(task, planted.context(tmp_path, catalog=with_val(planted)))
    assert calibrate(runner, *voxels_too_sure) is None
