"""The script for a GPU's first minutes, on a CPU and with the smallest model."""

import shutil

import pytest
import yaml

from tests.bench import gpu
from tests.conftest import read_json
from tests.stages.conftest import copy_study


@pytest.mark.kill
@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # of MONAI
def test_all_parts_run_and_are_saved_as_they_end(study, tmp_path):
    file = copy_study(study.source_folder / "tiny.yaml", tmp_path / "pack")
    content = yaml.safe_load(file.read_text())
    content["training"] = {"batch_size": 4, "checkpoint_every": 1, "threads": 1, "hours": 1}
    content["monitoring"] = {"snapshot_samples": 4}
    (file.parent / gpu.STUDY_FILE).write_text(yaml.safe_dump(content))
    shutil.rmtree(file.parent / "private")  # salt and paths of origin do not travel
    gpu.run(file.parent, "cpu", 0.5, is_tiny=True)
    results = read_json(file.parent / gpu.RESULTS_FILE)
    assert all(check["passed"] for check in results["calibration"]["checks"])
    rows = {row["measure"].split(", ", 2)[-1]: row for row in results["ViT-tiny"]}
    assert set(rows) >= {"store to step, samples a second", "waits for data", "MFU"}
    assert [row["peer"].split(":")[0] for row in results["ViT-tiny"][-2:]] == ["MONAI", "dense"]
    assert results["pretraining"]["steps"] >= 1
