"""The manifest of an encoder bundle (`encoder.json`), readable without torch.

A bundle is a folder of the weights, a self-test (a stored input and the encoder's tokens for it),
this manifest, and a README; it may also hold the U-Net's decoder that was trained along
(`decoder.safetensors`), and the list of training subjects (`training_subjects.parquet`). The
manifest has a format version, the model section, the crop size, and the thresholds of quality
control, the meaning of stored values and the preprocessing section, so that a new scan is checked
and prepared as the volumes of pretraining were; and the hashes of weights and self-test, which
detect any changed bit.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.bundle_files import check_files_exist, check_format, check_hashes
from ssl_pipeline.export.scan_contract import ScanContract
from ssl_pipeline.io.atomic import sha256_file, sha256_json
from ssl_pipeline.io.records import parse_object, read_json
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.types import Triple

FORMAT_VERSION = 5
WEIGHTS_FILE, SELF_TEST_FILE = "encoder.safetensors", "self_test.safetensors"
DECODER_FILE = "decoder.safetensors"
BUNDLE_MANIFEST = "encoder.json"
PRETRAIN_COMMAND = "`python -m stages pretrain --config STUDY`, with the study that made it,"


class BundleManifest(ScanContract):
    """All that is needed to build the encoder and to prepare scans for it."""

    format_version: int = Field(FORMAT_VERSION, description="version of this file's format")
    model: ModelConfig = Field(description="the backbone")
    crop_voxels: Triple = Field(description="size of pretraining's crops (z, y, x), in voxels")
    training_summary: dict[str, Any] = Field(description="what the encoder was trained on, and how")
    versions: dict[str, str] = Field(description="of the packages that computed the self-test")
    sha256: dict[str, str] = Field(description="of weights and self-test, by file name")

    @property
    def has_decoder(self) -> bool:
        """Whether a U-Net's decoder was trained along with the encoder."""
        return DECODER_FILE in self.sha256

    @property
    def files(self) -> tuple[str, ...]:
        """Files that must be there as they were written."""
        return (WEIGHTS_FILE, SELF_TEST_FILE, *((DECODER_FILE,) if self.has_decoder else ()))


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
    path = folder / BUNDLE_MANIFEST
    check_format(path, read_json(parse_object, path, remedy), FORMAT_VERSION, PRETRAIN_COMMAND)
    manifest = read_json(BundleManifest.model_validate_json, path, remedy)
    check_files_exist(folder, manifest.files, PRETRAIN_COMMAND)
    return manifest


def check_files(folder: Path, manifest: BundleManifest) -> None:
    """Raise UserError where weights or self-test differ from what was written."""
    expected = {name: manifest.sha256.get(name, "") for name in manifest.files}
    check_hashes(folder, expected, BUNDLE_MANIFEST, PRETRAIN_COMMAND)


def weights_hash(folder: Path) -> str:
    """Hash of the weights in a bundle, those of a decoder among them."""
    names = (name for name in (WEIGHTS_FILE, DECODER_FILE) if (folder / name).exists())
    first, *more = [sha256_file(folder / name) for name in names]
    return sha256_json([first, *more]) if more else first
