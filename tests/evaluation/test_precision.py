"""The precision of fine-tuning: decided once in a folder, by what the networks are made of."""

from dataclasses import replace
from pathlib import Path

import pytest

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.decoders.light import Light
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.precision import (
    PRECISION_FILE,
    PrecisionRecord,
    decide_precision,
    has_convolutions,
    with_recorded_precision,
)
from ssl_pipeline.evaluation.tasks import CropClassification, Segmentation
from ssl_pipeline.io.records import read_record, write_record
from ssl_pipeline.models import ResEnc
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.training.compute import available_precision

CLASSES = {3: "bright", 5: "dark"}
BLOBS = CropClassification(title="Blobs", label="blobs", classes=CLASSES)
VOXELS = Segmentation(title="Voxels", label="blobs", classes=CLASSES)


def test_auto_is_what_was_decided_first_in_the_folder(planted, tmp_path):
    runner, auto = TaskRunner(BLOBS, planted.context(tmp_path / "blobs")), Finetune()
    folder = runner.context.out
    assert with_recorded_precision(auto, folder) == auto
    first = decide_precision(auto, runner)
    record = read_record(PrecisionRecord, folder / PRECISION_FILE, "")
    assert first.precision == record.precision != "auto" and record.device == "cpu"
    write_record(folder / PRECISION_FILE, record.model_copy(update={"precision": "fp16"}))
    again = decide_precision(auto, runner)
    assert again.precision == "fp16" and with_recorded_precision(auto, folder) == again
    bf16 = Finetune(precision="bf16")
    assert decide_precision(bf16, runner) == bf16, "a study that names one has it"
    (folder / PRECISION_FILE).write_text("torn")
    assert decide_precision(auto, runner) == first


@pytest.mark.parametrize(
    ("task", "section", "model", "expected"),
    [
        (BLOBS, Finetune(), None, False),
        (VOXELS, Finetune(decoder=Light()), None, True),
        (VOXELS, Finetune(), None, True),
        (BLOBS, Finetune(), ResEnc(), True),
    ],
)
def test_a_convolution_decides_where_networks_convolve(
    planted, tmp_path, task, section, model, expected
):
    context = planted.context(tmp_path)
    if model:
        context = replace(context, encoder_factory=lambda _, seed: random_encoder(model, seed))
    assert has_convolutions(section, TaskRunner(task, context)) == expected


def test_predictions_take_a_precision_where_the_hardware_has_it():
    flags = Path("/proc/cpuinfo").read_text()
    is_emulated = "avx2" in flags and "avx512f" not in flags
    assert available_precision("bf16", "cpu") == ("fp32" if is_emulated else "bf16")
    assert {available_precision(each, "cpu") for each in ("fp32", "fp16")} == {"fp32"}
