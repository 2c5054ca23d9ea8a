"""A compiled run ends as a plain one and can be recorded; compiling takes a minute.

In processes of their own, where the checks of shapes, which a compiler cannot read, are not made.
"""

import multiprocessing
import shutil

import pytest
import torch

from ssl_pipeline.flight.config import Flight
from ssl_pipeline.models import ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.objectives import Hybrid
from ssl_pipeline.objectives.config import Ramp
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.loop import Run
from ssl_pipeline.training.metrics import read
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import Sampler

PATCH = (4, 4, 4)


def train(folder, output, compiled):
    """Leave the weights behind."""
    catalog = Catalog.read(output / "preprocess" / "catalog.parquet")
    training = Training(
        steps=4, pairs=4, precision="fp32", device="cpu", threads=1, compile=compiled
    )
    reader = CropReader(output / "preprocess" / "volumes", catalog)
    views = Views(crop_voxels=(16, 16, 16))
    sampler = Sampler(catalog.entries, reader, views, PATCH, pairs=4, seed=0)
    torch.manual_seed(0)
    built = Hybrid(ramp=Ramp(start=0, end=0)).build(random_encoder(ViT(patch_voxels=PATCH), 0))
    flight = Flight(every_steps=2, bank=6, stop_on=())
    encoder = Run(folder, built, sampler, training, flight).train()
    torch.save(torch.cat([p.detach().flatten() for p in encoder.parameters()]), folder / "end.pt")


@pytest.mark.kill
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with g++, which is not here")
def test_a_compiled_run_ends_as_a_plain_one(study, tmp_path):
    ends = []
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        folder.mkdir()
        told = (folder, study.folder, compiled)
        process = multiprocessing.get_context("spawn").Process(target=train, args=told)
        process.start()
        process.join()
        assert process.exitcode == 0
        ends.append(torch.load(folder / "end.pt"))
        assert "gradient_ratio" in read(folder / "metrics.jsonl")[-1]
    assert (ends[1] - ends[0]).norm() < 1e-4 * ends[0].norm()
