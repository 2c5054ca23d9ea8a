"""Small runs on real crops for the tests of this folder, in any process."""

import numpy as np
import torch

from ssl_pipeline.models import ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.objectives import Contrastive, Hybrid
from ssl_pipeline.objectives.contrast import Contrast
from ssl_pipeline.objectives.terms.dense_contrast import DenseContrast
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.term import Ramp
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.loop import RunSettings, Trainer
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import Sampler

MODEL = ViT(patch_voxels=(4, 4, 4))
VIEWS = Views(crop_voxels=(16, 16, 16))
MONITORING = Monitoring(snapshot_every=3, snapshot_samples=6, stop_on=())
# With all of their terms, from the first step on.
CONTRASTIVE = Contrastive(
    contrast=Contrast(subject_weight=0.3, local_weight=1, similar_by={"age": 1})
)
HYBRID = Hybrid(ramp=Ramp(start=0, end=0), contrast=CONTRASTIVE.contrast)
# Both terms through the U-Net's decoder.
THROUGH_UNET = (
    Reconstruction(decoder="unet"),
    DenseContrast(decoder="unet", points_per_axis=3),
)
SETTINGS = {
    "steps": 6,
    "batch_size": 4,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
    "checkpoint_every": 2,
    "log_every": 1,
}


def small_trainer(
    folder,
    output,
    objective=HYBRID,
    *,
    model=MODEL,
    monitoring=MONITORING,
    views=VIEWS,
    rank_info=None,
    **settings,
):
    """A run in `folder` on the volumes of the study in `output`; `settings` go to Training."""
    training = Training(**{**SETTINGS, **settings})
    catalog = Catalog.read(output / "preprocess" / "catalog.parquet")
    reader = CropReader(output / "preprocess" / "volumes", catalog)
    ages = np.array([[4.0 + n % 2] if n else [np.nan] for n in range(len(catalog.entries))])
    sampler = Sampler(
        catalog.entries, reader, views, model.patch_voxels,
        batch_size=training.batch_size, seed=0, metadata_features=ages.astype(np.float32),
    )  # fmt: skip
    return Trainer(
        folder,
        build_objective(objective, model),
        sampler,
        RunSettings(training, monitoring),
        rank_info=rank_info,
    )


def build_objective(objective=HYBRID, model=MODEL):
    """The objective as such a run begins with it."""
    torch.manual_seed(0)
    return objective.build(random_encoder(model, 0))


def trained_weights(run):
    """The parameters of the encoder that a run exports at its end."""
    run.train()
    return flat_weights(run.final_network())


def flat_weights(module):
    """All parameters, one after the other."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
