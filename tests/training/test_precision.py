"""Numbers of two bytes: a run in them ends near that in four, and keeps its scale on resume.

In a process of their own, and fp16 last: after a product in fp16, fp32 ones of the same process
round otherwise on some processors.
"""

import multiprocessing

import pytest
import torch

from ssl_pipeline.models import ViT
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.objectives import Hybrid
from ssl_pipeline.training import checkpoint
from tests.conftest import crash_at_step
from tests.training.small_trainer import build_objective, flat_weights, small_trainer

# Products in two bytes are slow where a processor only imitates them.
MODEL = ViT(patch_voxels=(8, 8, 8))
FEW = {
    "model": MODEL,
    "monitoring": Monitoring(snapshot_every=6, snapshot_samples=2, stop_on=()),
}


def train(folders, output):
    """Half a run, and the other half as a resume; leaves the weights behind."""
    for precision, folder in folders.items():
        crash_at_step(small_trainer(folder, output, Hybrid(), precision=precision, **FEW), 3)
        resumed = small_trainer(folder, output, Hybrid(), precision=precision, **FEW)
        resumed.train()
        torch.save(flat_weights(resumed.objective), folder / "w")


@pytest.fixture(scope="module")
def ends(study, tmp_path_factory):
    folders = {each: tmp_path_factory.mktemp(each) for each in ("fp32", "bf16", "fp16")}
    arguments = (folders, study.folder)
    process = multiprocessing.get_context("spawn").Process(target=train, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0
    return folders


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_two_bytes_end_near_four(ends, precision):
    exact, near = torch.load(ends["fp32"] / "w"), torch.load(ends[precision] / "w")
    start = flat_weights(build_objective(Hybrid(), MODEL))
    assert 0 < (near - exact).norm() < 0.5 * (exact - start).norm()


def test_the_scale_of_fp16_is_kept_and_used(ends):
    kept = {p: checkpoint.load_newest(ends[p] / "checkpoints") for p in ends}
    assert kept["fp16"].compute.precision == "fp16"
    # 65536 halves whenever a gradient is too large for fp16; 6 good steps never raise it.
    assert kept["fp16"].scaler["scale"] <= 65536
    assert kept["fp16"].scaler["_growth_tracker"] == 6  # counted on over the resume
    assert not kept["fp32"].scaler and not kept["bf16"].scaler
