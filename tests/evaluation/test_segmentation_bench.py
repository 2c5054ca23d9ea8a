"""`make bench-segmentation` at its smallest: beside real nnU-Net and MONAI, a row a measure."""

import json
import os
import subprocess
import sys

import pytest

from tests.bench import nnunet

pytestmark = [
    pytest.mark.nnunet,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not nnunet.ENVIRONMENT.exists(), reason="make nnunet-env makes it"),
]

ROWS = {
    "mean Dice": 2,  # after equal crops, and after equal seconds
    "training steps a second": 2,  # nnU-Net's network and MONAI's
    "voxels, seconds": 2,  # nnU-Net's predictor and MONAI's inferer
    "voxels, peak memory": 2,
}


def test_the_smallest_comparison_writes_every_row(data_folder, tmp_path):
    words = ["-m", "tests.bench.segmentation", "--tiny", "--out", str(tmp_path)]
    environment = os.environ | {"SSL_PIPELINE_DATA": str(data_folder)}
    subprocess.run([sys.executable, *words], check=True, env=environment)
    rows = json.loads((tmp_path / "segmentation.json").read_text())
    assert all({"measure", "ours", "peer", "ratio", "goal"} <= row.keys() for row in rows)
    counts = {what: sum(what in row["measure"] for row in rows) for what in ROWS}
    assert counts == ROWS and len(rows) == sum(ROWS.values())
    assert all(row["ratio"] > 0 for row in rows if "Dice" not in row["measure"])
