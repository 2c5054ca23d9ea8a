"""The manifest of a task model (`model.json`), readable without torch.

A task model is a folder of a fine-tuned network, a self-test (a stored crop and the network's
outputs for it), features of training scans, the list of training subjects, this manifest, and a
README.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.prediction.calibration import Calibration
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.export.bundle_files import check_files_exist, check_format, check_hashes
from ssl_pipeline.export.manifest import SELF_TEST_FILE
from ssl_pipeline.export.scan_contract import ScanContract
from ssl_pipeline.io.records import parse_object, read_json
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.types import Triple

# In 1, classes were sorted by their values, and outputs were not; in 2, precision could be auto.
FORMAT_VERSION = 3
MODEL_MANIFEST, NETWORK_FILE = "model.json", "network.safetensors"
FEATURES_FILE = "training_features.safetensors"
MODEL_FILES = (NETWORK_FILE, SELF_TEST_FILE, FEATURES_FILE)
FINETUNE_COMMAND = "`python -m stages finetune --config STUDY task=TASK`, with the study's file,"


class ModelScore(Section):
    """A score on subjects that the model did not learn from."""

    metric: str = Field(description="name of the metric, as in the report")
    mean: float | None = Field(description="mean over the seeds of fine-tuning")
    low: float | None = Field(description="lower end of the confidence interval")
    high: float | None = Field(description="upper end of the confidence interval")


class ModelManifest(ScanContract):
    """All that is needed to build the network, and to prepare scans for it."""

    format_version: int = Field(FORMAT_VERSION, description="version of this file's format")
    task: TaskConfig = Field(description="the task, with its classes")
    model: ModelConfig = Field(description="the backbone")
    finetune: Finetune = Field(
        description="settings of the fine-tuning, of one method and precision"
    )
    crop_voxels: Triple = Field(description="size of the network's crops (z, y, x), in voxels")
    training_summary: dict[str, Any] = Field(description="what the model was trained on, and how")
    split: str = Field(description="the subjects of the scores: val or test")
    n_scored_subjects: int = Field(description="number of the subjects of the scores")
    confidence: float = Field(description="nominal coverage of the scores' intervals")
    scores: tuple[ModelScore, ...] = Field(description="scores of models trained as this one")
    calibration: Calibration | None = Field(
        None,
        description="temperature of the probabilities of its classes; none where it predicts a "
        "number, or too few subjects were neither trained on nor scored",
    )
    unlike_distance: float | None = Field(
        description="distance to the training scans beyond which a scan is unlike them; none where "
        "they are few"
    )
    versions: dict[str, str] = Field(description="of the packages that computed the self-test")
    sha256: dict[str, str] = Field(description="of the other files, by name")


def read_model_manifest(folder: Path) -> ModelManifest:
    """Read the manifest of a task model, and check that its files are whole.

    Raises UserError where the folder is no task model, lacks a file, has another format version,
    or is damaged.
    """
    path = folder / MODEL_MANIFEST
    if not path.exists():
        raise UserError(
            f"{folder} is no task model: give the folder that holds {MODEL_MANIFEST}, such as "
            "build/demo/finetune/organs/model."
        )
    remedy = f"copy the model again from its source, or remove it and run {FINETUNE_COMMAND} again"
    check_format(path, read_json(parse_object, path, remedy), FORMAT_VERSION, FINETUNE_COMMAND)
    manifest = read_json(ModelManifest.model_validate_json, path, remedy)
    check_files_exist(folder, MODEL_FILES, FINETUNE_COMMAND)
    expected = {name: manifest.sha256.get(name, "") for name in MODEL_FILES}
    check_hashes(folder, expected, MODEL_MANIFEST, FINETUNE_COMMAND)
    return manifest
