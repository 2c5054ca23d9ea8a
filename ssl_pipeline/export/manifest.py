"""The manifest of an encoder bundle (`encoder.json`), readable without torch.

A bundle is a folder of the weights, a self-test (a stored input and the encoder's tokens for it),
this manifest, and a README; it may also hold the list of training subjects
(`training_subjects.parquet`). The manifest has a format version, the model section, the crop size,
and the thresholds of quality control, the meaning of stored values and the preprocessing section,
so that a new scan is checked and prepared as the volumes of pretraining were; and the hashes of
weights and self-test, which detect any changed bit.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.stored_values import StoredValues
from ssl_pipeline.io.atomic import sha256_file
from ssl_pipeline.io.records import parse_object, read_json
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.types import Triple
from ssl_pipeline.volumes.quality_control import QualityThresholds

FORMAT_VERSION = 5
WEIGHTS_FILE, SELF_TEST_FILE = "encoder.safetensors", "self_test.safetensors"
BUNDLE_MANIFEST, README_FILE = "encoder.json", "README.md"
NEW_CARD_FILE = "README.new.md"  # the model card, where the README is its owner's
PRETRAIN_COMMAND = "`python -m stages pretrain --config STUDY`, with the study that made it,"


class BundleManifest(Section):
    """All that is needed to build the encoder and to prepare scans for it."""

    format_version: int = Field(FORMAT_VERSION, description="version of this file's format")
    model: ModelConfig = Field(description="the backbone")
    quality: QualityThresholds = Field(description="beyond which scans are rejected")
    stored_values: tuple[StoredValues, ...] = Field(description="meaning of training files' values")
    preprocess: Preprocess = Field(description="how scans are prepared")
    crop_voxels: Triple = Field(description="size of pretraining's crops (z, y, x), in voxels")
    training_summary: dict[str, Any] = Field(description="what the encoder was trained on, and how")
    versions: dict[str, str] = Field(description="of the packages that computed the self-test")
    sha256: dict[str, str] = Field(description="of weights and self-test, by file name")


def read_manifest(folder: Path) -> BundleManifest:
    """Read the manifest of a bundle.

    Raises UserError where the folder is no bundle, lacks a file, has another format version, or
    holds a manifest that cannot be read.
    """
    if not (folder / BUNDLE_MANIFEST).exists():
        raise UserError(
            f"{folder} is no encoder bundle: give the folder that holds {WEIGHTS_FILE} and "
            f"{BUNDLE_MANIFEST}, such as build/demo/pretrain/encoder."
        )
    remedy = f"copy the bundle again from its source, or remove it and run {PRETRAIN_COMMAND} again"
    _check_format(folder, read_json(parse_object, folder / BUNDLE_MANIFEST, remedy))
    parse = BundleManifest.model_validate_json
    manifest = read_json(parse, folder / BUNDLE_MANIFEST, remedy)
    for name in (WEIGHTS_FILE, SELF_TEST_FILE):
        if not (folder / name).exists():
            raise UserError(
                f"{folder} lacks {name}: copy the whole bundle, or run {PRETRAIN_COMMAND} again, "
                "which writes it again."
            )
    return manifest


def check_files(folder: Path, manifest: BundleManifest) -> None:
    """Raise UserError where weights or self-test differ from what was written."""
    for name in (WEIGHTS_FILE, SELF_TEST_FILE):
        if sha256_file(folder / name) != manifest.sha256.get(name):
            raise UserError(
                f"{folder / name} is damaged, for its SHA-256 is not the one in {BUNDLE_MANIFEST}: "
                "copy the bundle again from its source, or remove the file and run "
                f"{PRETRAIN_COMMAND} again."
            )


def _check_format(folder: Path, content: dict[str, Any]) -> None:
    found = content.get("format_version")
    if found == FORMAT_VERSION:
        return
    newer = isinstance(found, int) and found > FORMAT_VERSION
    remedy = (
        "use a newer ssl-pipeline."
        if newer
        else f"run {PRETRAIN_COMMAND} again, which writes it again."
    )
    raise UserError(
        f"{folder / BUNDLE_MANIFEST} has format {found}, this version reads {FORMAT_VERSION}: "
        f"{remedy}"
    )
