"""Low-rank updates: they change nothing at first, and are merged exactly."""

import pytest
import torch

from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.models.low_rank import add_updates, merge_updates

RANK = 2
MODELS = [ViT(patch_voxels=(4, 4, 4)), ResEnc()]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_merged_updates_are_weights_that_differ_by_their_rank_and_give_the_same(model):
    pytest.importorskip("peft")
    encoder = random_encoder(model, 0).eval()
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    images, spacing = torch.randn(2, 1, 32, 32, 32), torch.ones(2, 3)
    with torch.no_grad():
        plain = encoder(images, spacing)
        torch.manual_seed(0)
        add_updates(encoder, RANK, alpha=4.0)
        assert torch.equal(encoder(images, spacing), plain)
        trained = [p for p in encoder.parameters() if p.requires_grad]
        assert 0 < sum(p.numel() for p in trained) < sum(w.numel() for w in before.values()) / 2
        for parameter in trained:
            parameter.normal_(std=0.02)
        updated = encoder(images, spacing)
        merge_updates(encoder)
        assert not torch.allclose(updated, plain, atol=1e-3)
        assert torch.allclose(encoder(images, spacing), updated, atol=1e-5)
    after = encoder.state_dict()
    assert after.keys() == before.keys()
    changed = {n: after[n] - before[n] for n in before if not torch.equal(after[n], before[n])}
    assert all(name.startswith(encoder.trunk) for name in changed)
    linear = [change for change in changed.values() if change.ndim == 2]
    assert {int(torch.linalg.matrix_rank(change)) for change in linear} <= {RANK}
