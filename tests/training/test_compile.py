"""A compiled run ends as a plain one and can be recorded; compiling takes a minute.

In processes of their own, where the checks of shapes, which a compiler cannot read, are not made.
"""

import multiprocessing
import shutil

import pytest
import torch

from ssl_pipeline.training.metrics_log import read_metrics
from tests.training.small_trainer import small_trainer, trained_weights


def train(folder, output, compiled):
    """Leave the weights behind."""
    weights = trained_weights(small_trainer(folder, output, compile=compiled))
    torch.save(weights, folder / "end.pt")


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
        assert "gradient_ratio" in read_metrics(folder / "metrics.jsonl")[-1]
    assert (ends[1] - ends[0]).norm() < 1e-4 * ends[0].norm()
