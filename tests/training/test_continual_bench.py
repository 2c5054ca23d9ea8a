"""The evidence on encoders that go on learning: its runs, goals and sabotages, on real crops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_pipeline.models import ViT
from ssl_pipeline.models.encoder import random_encoder
from tests.bench.forgetting import ARMS, WITH, WITHOUT, Sequel, forgetting_rows, loss_matrix
from tests.bench.sabotage import one_nan, shuffle_block


def test_domains_come_one_after_the_other_and_all_are_measured(study, catalog, reader, tmp_path):
    held_out = [
        replace(e, split="val" if n % 3 == 2 else "train") for n, e in enumerate(catalog.entries)
    ]
    domains = {"a": held_out[:3], "b": held_out[3:]}
    sequel = Sequel(study, reader, domains, tmp_path, first_steps=3, more_steps=2, places=3)
    sequel.freeze()
    losses = {name: loss_matrix(sequel, sequel.run(name, arm)) for name, arm in ARMS.items()}
    for found in losses.values():
        assert found.shape == (2, 2) and np.isnan(found[0, 1])
        assert np.isfinite(found[[0, 1, 1], [0, 0, 1]]).all()
    assert losses[WITH][0, 0] == losses[WITHOUT][0, 0]  # the first run is one
    assert losses[WITH][1, 0] != losses[WITHOUT][1, 0]
    (first,), (later,) = ([*(tmp_path / run).iterdir()] for run in ("first", "replay,-random"))
    assert (first / "checkpoints").exists()
    steps = sorted((later / "checkpoints").glob("*.pt"))
    assert steps[-1].stem == "step-00000005"


@pytest.mark.parametrize(
    ("replayed", "without", "new", "met"),
    [(1.04, 1.4, 1.0, [True] * 3), (1.06, 1.2, 1.0, [False, False, True]),
     (1.0, 1.4, 1.03, [True, True, False])],
)  # fmt: skip
def test_goals_are_met_by_old_and_new_domains(replayed, without, new, met):
    plain = np.array([[[1.0, np.nan], [without, 2.0]]])
    mixed = np.array([[[1.0, np.nan], [replayed, 2.0 * new]]])
    assert [row.met for row in forgetting_rows(plain, mixed)] == met


@pytest.mark.parametrize("change", [shuffle_block, one_nan])
def test_a_sabotage_changes_one_block_alone(change):
    weights = random_encoder(ViT(), 0).state_dict()
    before = {name: weight.clone() for name, weight in weights.items()}
    change(weights, np.random.default_rng(0))
    changed = [name for name in before if not torch.equal(before[name], weights[name])]
    assert changed and all("blocks.3." in name for name in changed)
    if change is shuffle_block:
        for name in changed:
            assert torch.equal(weights[name].flatten().sort()[0], before[name].flatten().sort()[0])
