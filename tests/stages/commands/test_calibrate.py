"""Calibration: a record of the pace and of checks, which `estimate` goes by from then on."""

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.records import write_record
from ssl_pipeline.objectives.cost import training_cost
from ssl_pipeline.training.calibration import HardwareCheck, Pace, TrainingCalibration
from stages.commands.calibrate import calibrate, report_calibration
from stages.commands.clean import clean_study
from stages.commands.estimate import estimate_stage
from stages.core import layout
from stages.core.resources import dataset_size
from stages.core.study_file import load_study
from stages.core.training_rate import rate_hash
from tests.conftest import read_json
from tests.stages.conftest import copy_study

FAILED = HardwareCheck(name="fp32", finding="differs by 0.1", passed=False)
# Steps of 4 samples that take 2 s on one core, and a snapshot and a checkpoint.
RECORD = {
    "profile": "slurm", "host": "node7", "device": "cpu", "device_name": "A node",
    "precision": "fp32", "ranks": 1, "threads": 1, "batch_size": 4, "read_samples_per_s": 1.0,
    "pace": Pace(step_s=2, snapshot_s=30, checkpoint_s=1, data_wait=0.1, mfu=0.2),
    "memory_bytes": 10**9, "gpu_memory_bytes": 0, "checks": (FAILED,),
    "measured_at": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


def write_calibration(study):
    """What a calibration with the settings of the study has left in its folder."""
    flops = training_cost(study.objective, study.model, study.views).sample_flops
    record = TrainingCalibration(**RECORD, settings_hash=rate_hash(study), sample_flops=flops)
    write_record(layout.calibration_file(study, "slurm"), record)


def estimate(study):
    return estimate_stage("pretrain", study, {}, dataset_size(study), None).resource_estimate


@pytest.fixture
def moved(study, tmp_path):
    """The tiny study with an output folder of its own, where nothing has run."""
    return study.model_copy(update={"output": str(tmp_path)})


def test_estimates_go_by_a_calibration_and_scale_that_of_other_settings(moved):
    assert estimate(moved).seconds.basis.startswith("assumed: ")
    write_calibration(moved)
    need = estimate(moved)
    # A snapshot comes every 100 steps, a checkpoint every second one.
    assert need.seconds.value == pytest.approx(6 * (2 + 30 / 100 + 1 / 2))
    assert need.seconds.basis == (
        "measured: 1.43 samples/s by `calibrate --on slurm` of 2026-01-01 on A node"
    )
    assert need.memory.value == 10**9
    views = moved.views.model_copy(update={"crop_voxels": (32, 32, 16)})
    wider = moved.model_copy(update={"views": views})
    flops = [training_cost(s.objective, s.model, s.views).sample_flops for s in (moved, wider)]
    scaled = estimate(wider)
    assert scaled.seconds.value == pytest.approx(6 * 2 * flops[1] / flops[0])
    assert "from the operations a second of other settings by `calib" in scaled.seconds.basis
    assert scaled.memory.basis.startswith("assumed: ")


def test_hours_are_estimated_to_be_as_many_steps_as_were_calibrated(moved):
    training = moved.training.model_copy(update={"steps": 0, "hours": 1.0})
    by_hours = moved.model_copy(update={"training": training})
    write_calibration(by_hours)
    steps = round(3600 / (2 + 30 / 100 + 1 / 2))
    assert f"training.hours; about {steps} steps, measured: " in estimate(by_hours).seconds.basis


def test_a_failed_check_is_one_sentence(moved):
    write_calibration(moved)
    with pytest.raises(UserError, match=r"A node on node7 fails 1 of 1 checks \(fp32\): train el"):
        report_calibration(moved, "slurm")


@pytest.mark.parametrize(
    "seconds, sentence", [(0.0, "--seconds is 0: give"), (1.0, "run the stage preprocess first")]
)
def test_what_cannot_be_calibrated_is_one_sentence(study_file, seconds, sentence):
    with pytest.raises(UserError, match=sentence):
        calibrate(study_file, "local", seconds)


@pytest.mark.kill
def test_a_calibration_measures_checks_and_prints(study, tmp_path, capsys):
    file = copy_study(study.source_folder / "tiny.yaml", tmp_path / "copied")
    study = load_study(file)
    calibrate(file, "local", 0.1)
    said = capsys.readouterr().out
    for quantity in ("samples a second", "one thread reads", "MFU", "snapshot, checkpoint"):
        assert quantity in said
    record = read_json(study.folder / "calibrate/local.json")
    findings = {check["name"]: check["finding"] for check in record["checks"]}
    assert all(check["passed"] for check in record["checks"])
    resumed = findings["a killed run, resumed at step 2, as an undisturbed one"]
    assert resumed == "equal bit for bit"
    assert findings["features on cpu as on the CPU, fp32"].startswith("differ by ")
    assert findings["compile"] == "off, and timed on GPUs alone"
    assert set(findings) >= {"bf16", "fused attention kernel", "fused optimizer"}
    assert sorted(p.name for p in (study.folder / "calibrate").iterdir()) == [".lock", "local.json"]
    assert "by `calibrate --on local` of " in estimate(study).seconds.basis
    clean_study(study, remove_all=True, assume_yes=True)
    assert not (study.folder / "calibrate").exists()
