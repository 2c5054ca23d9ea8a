"""Banks of domains: the same places for every encoder, however many scans a study has by then."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_pipeline.models import ViT
from ssl_pipeline.objectives import Hybrid
from ssl_pipeline.objectives.contrast import Contrast
from ssl_pipeline.registry.registry import Registry
from ssl_pipeline.training.domain_bank import TOTAL, domain_title, held_out_by_domain
from ssl_pipeline.training.held_out import bank_sampler, freeze_bank, measure_bank
from ssl_pipeline.views.augmentation import augmented_views
from ssl_pipeline.views.config import Views
from tests.training.small_trainer import build_objective

MODEL = ViT(patch_voxels=(4, 4, 4))
OBJECTIVE = Hybrid(contrast=Contrast(subject_weight=0.3, local_weight=1))


@pytest.fixture(scope="module")
def held_out(catalog):
    """The tiny study's volumes as if none had been trained on, of two sites."""
    sites = ["a", "a", "a", "b", "b", "b"]
    pairs = zip(catalog.entries, sites, strict=True)
    return [replace(entry, split="val", site=site) for entry, site in pairs]


@pytest.fixture(scope="module")
def bank(held_out, reader):
    views = Views(crop_voxels=(16, 16, 16))
    return freeze_bank({"site": "a"}, held_out[:3], reader, views, MODEL.patch_voxels, 6)


@pytest.fixture(scope="module")
def objective():
    return build_objective(OBJECTIVE, MODEL)


@pytest.fixture(scope="module")
def measure(objective, bank, held_out, reader):
    return measure_bank(objective, bank, "sha", bank_sampler(bank, held_out[:3], reader), "cpu")


def test_a_domain_is_what_shares_its_attributes_and_holds_no_training_scan(held_out):
    learned = replace(held_out[0], split="train", site="c")
    found = held_out_by_domain([learned, *held_out], ("root", "site"))
    assert [(domain, len(own)) for domain, own in found] == [
        ({"root": "head", "site": "a"}, 3),
        ({"root": "head", "site": "b"}, 3),
    ]
    assert domain_title(found[0][0]) == "head, a"


def test_every_subject_of_a_bank_has_as_many_places(bank):
    assert [place.subject for place in bank.places] == [0, 1, 2, 0, 1, 2]
    assert len({(place.volume, place.start) for place in bank.places}) == 6


def test_more_scans_in_another_order_change_nothing(bank, held_out, reader, objective, measure):
    later = bank_sampler(bank, held_out[::-1], reader)
    assert measure_bank(objective, bank, "sha", later, "cpu") == measure


def test_losses_are_those_of_the_objective(bank, held_out, reader, objective, measure):
    sampler = bank_sampler(bank, held_out[:3], reader)
    index = [entry.sha256 for entry in sampler.entries].index(bank.places[4].volume)
    samples = sampler.batch_at(4, index, bank.places[4].start)
    with torch.no_grad():
        batch, images = augmented_views(samples, bank.views, bank.patch_voxels)
        outputs = objective(batch, images)
    for name, total in outputs.sums.items():
        loss = (total / outputs.counts[name]).item()
        assert measure.losses[name][4] == pytest.approx(loss, rel=1e-4)
    weights = objective.term_weights(1.0)
    terms = [name for name in measure.losses if name != TOTAL]
    assert len(terms) == 3
    assert all(None not in measure.losses[name] for name in terms)
    summed = sum(weights[name] * np.array(measure.losses[name]) for name in terms)
    assert measure.losses[TOTAL] == pytest.approx(summed, rel=1e-4)
    by_subject = measure.subject_losses(bank)
    assert by_subject[1] == pytest.approx(np.mean([measure.losses[TOTAL][n] for n in (1, 4)]))


def test_a_volume_that_is_gone_leaves_the_other_places_as_they_were(
    bank, held_out, reader, objective, measure
):
    fewer = measure_bank(objective, bank, "sha", bank_sampler(bank, held_out[1:3], reader), "cpu")
    losses = fewer.losses["reconstruction"]
    assert [losses[n] is None for n in range(6)] == [True, False, False] * 2
    assert losses[1] == measure.losses["reconstruction"][1]
    assert set(fewer.subject_losses(bank)) == {1, 2}


def test_a_scan_that_is_trained_on_by_now_is_no_part_of_its_bank(bank, held_out):
    learned = replace(held_out[0], split="train")
    assert bank.entries([learned, *held_out[1:]]) == held_out[1:3]


def test_the_first_bank_of_a_domain_counts(tmp_path, bank):
    registry = Registry(tmp_path)
    registry.add_bank("chest", bank)
    before = registry.banks("chest")
    registry.add_bank("chest", bank.model_copy(update={"places": bank.places[:2]}))
    assert registry.banks("chest") == before and list(before.values()) == [bank]
