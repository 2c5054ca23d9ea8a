"""Numbers of two bytes: a run in them ends near that in four, and keeps its scale on resume.

Each in a process of its own: after a product in fp16, fp32 ones of the same process round otherwise
on some processors.
"""

import multiprocessing

import pytest
import torch

from ssl_pipeline.flight.config import Flight
from ssl_pipeline.models import ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.objectives import Hybrid
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training import checkpoint
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.loop import Run
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import Sampler
from tests.conftest import die_at

PATCH = (4, 4, 4)
FLIGHT = Flight(bank=4, stop_on=())


def train(folder, output, precision):
    """Half a run, and the other half as a resume; leaves the weights behind."""
    catalog = Catalog.read(output / "preprocess" / "catalog.parquet")
    training = Training(
        steps=6, pairs=4, precision=precision, device="cpu", threads=1, checkpoint_steps=2
    )
    for _ in range(2):
        reader = CropReader(output / "preprocess" / "volumes", catalog)
        views = Views(crop_voxels=(16, 16, 16))
        sampler = Sampler(catalog.entries, reader, views, PATCH, pairs=4, seed=0)
        torch.manual_seed(0)
        built = Hybrid().build(random_encoder(ViT(patch_voxels=PATCH), 0))
        run = Run(folder, built, sampler, training, FLIGHT)
        if run.step == 0:
            die_at(run, 3)
        else:
            run.train()
    torch.save(torch.cat([p.detach().flatten() for p in run.objective.parameters()]), folder / "w")


@pytest.fixture(scope="module")
def ends(study, tmp_path_factory):
    context, folders = multiprocessing.get_context("spawn"), {}
    for precision in ("fp32", "bf16", "fp16"):
        folders[precision] = tmp_path_factory.mktemp(precision)
        process = context.Process(target=train, args=(folders[precision], study.folder, precision))
        process.start()
        process.join()
        assert process.exitcode == 0
    return folders


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_two_bytes_end_near_four(ends, precision):
    exact, near = torch.load(ends["fp32"] / "w"), torch.load(ends[precision] / "w")
    start = torch.cat([p.flatten() for p in build_start().parameters()]).detach()
    assert 0 < (near - exact).norm() < 0.5 * (exact - start).norm()


def build_start():
    torch.manual_seed(0)
    return Hybrid().build(random_encoder(ViT(patch_voxels=PATCH), 0))


def test_the_scale_of_fp16_is_kept_and_used(ends):
    kept = {p: checkpoint.newest(ends[p] / "checkpoints") for p in ends}
    assert kept["fp16"]["compute"]["precision"] == "fp16"
    # 65536 halves whenever a gradient is too large for fp16; 6 good steps never raise it.
    assert kept["fp16"]["scaler"]["scale"] <= 65536
    assert kept["fp16"]["scaler"]["_growth_tracker"] == 6  # counted on over the resume
    assert not kept["fp32"]["scaler"] and not kept["bf16"]["scaler"]
