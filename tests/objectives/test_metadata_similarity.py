"""Metadata features of scans; similar subjects count less as negatives in a step."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_pipeline.errors import UserError
from ssl_pipeline.objectives import Contrastive
from ssl_pipeline.objectives.contrast import Contrast
from ssl_pipeline.objectives.losses import metadata_similarity
from ssl_pipeline.objectives.metadata_similarity import metadata_features
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import Sampler
from stages.trainer import build_sampler

SAYS = ({"age": "40", "region": "chest"}, {"age": "50", "region": "chest"}, {"age": "40"})


@pytest.fixture
def entries(catalog):
    return [
        replace(entry, targets=dict(said))
        for entry, said in zip(catalog.entries, SAYS, strict=False)
    ]


def kernel(entries, **similar_by):
    return metadata_similarity(torch.from_numpy(metadata_features(entries, similar_by)))


def test_numbers_are_alike_by_their_width_and_words_where_equal(entries):
    near, same = np.exp(-0.5), 1
    assert kernel(entries, age=10.0) == pytest.approx(
        np.array([[1, near, 1], [near, 1, near], [1, near, 1]])
    )
    of_region = kernel(entries, region="equal")
    assert of_region[0, 1] == same and of_region[2].max() == 0, "nothing is known of the last"
    both = kernel(entries, age=10.0, region="equal")
    assert both[0, 1] == pytest.approx(near) and both[0, 2] == 0
    assert metadata_features(entries, {}).shape == (len(entries), 0)
    entries[0].targets["age"], entries[1].targets["age"] = "067Y", "006M"
    assert metadata_features(entries, {"age": 10.0})[:2, 0] == pytest.approx([6.7, 0.05])


def test_different_words_are_not_alike(entries):
    entries[1].targets["region"] = "abdomen"
    assert kernel(entries, region="equal")[0, 1] == 0


def test_what_nobody_says_and_words_with_a_width_are_refused(entries):
    with pytest.raises(UserError, match=r"contrast\.similar_by\.agee: no scan has 'agee'; .* age"):
        metadata_features(entries, {"agee": 10.0})
    with pytest.raises(
        UserError, match=r"similar_by\.region is 5, a width, .*'chest'.* put `equal`"
    ):
        metadata_features(entries, {"region": 5.0})
    with pytest.raises(UserError, match="similar_by is region, in which no two scans differ"):
        metadata_features(entries[:2], {"region": "equal"})


def test_samples_carry_the_traits_of_their_scan(entries, reader):
    found = metadata_features(entries, {"age": 10.0})
    views = Views(crop_voxels=(16, 16, 16))
    sampler = Sampler(
        entries, reader, views, (4, 4, 4), batch_size=3, seed=0, metadata_features=found
    )
    meta = sampler.batch(0).meta
    assert torch.equal(meta.metadata_features, torch.from_numpy(found[meta.entry_index[:, 0]]))


def test_a_study_says_what_makes_subjects_alike(study, catalog, entries):
    contrast = Contrast(subject_weight=0.1, similar_by={"age": 10})
    asked = study.model_copy(update={"objective": Contrastive(contrast=contrast)})
    sampler = build_sampler(asked, catalog, entries, 4)
    assert np.array_equal(sampler.metadata_features, [[4], [5], [4]])
