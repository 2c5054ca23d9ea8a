"""What an encoder bundle says of itself, readable without torch.

A bundle is a folder of the weights, a proof (a stored input and the tokens that the encoder made of
it), this card, and a README for people; beside them may lie whom the encoder was trained on
(`trained_on`). The card holds a format version, the model's section, the crop, and the
preprocessing section, so that features of a new scan are computed as those of pretraining were; and
the hashes of weights and proof, which notice any bit that changed.
"""

from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import read_json, sha256_file
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.views.config import Triple

FORMAT_VERSION = 2
WEIGHTS_FILE, SELF_TEST_FILE = "encoder.safetensors", "proof.safetensors"
BUNDLE_MANIFEST, README_FILE = "encoder.json", "README.md"
PRETRAIN_COMMAND = "`python -m stages pretrain --config STUDY`, with the study that made it,"


class BundleManifest(Section):
    """All that is needed to build the encoder and to prepare scans for it."""

    format_version: int = Field(FORMAT_VERSION, description="version of this file's format")
    model: ModelConfig = Field(description="the backbone")
    preprocess: Preprocess = Field(description="how scans are prepared")
    crop_voxels: Triple = Field(description="size of pretraining's crops (z, y, x), in voxels")
    training_summary: dict[str, Any] = Field(description="what it was trained on")
    versions: dict[str, str] = Field(description="of the packages that computed the proof")
    sha256: dict[str, str] = Field(description="of weights and proof, by the name of the file")


def read_manifest(folder: Path) -> BundleManifest:
    """The card of a bundle.

    Raises UserError where the folder is no bundle, lacks a file, was written by another format
    version, or holds a card that cannot be read.
    """
    if not (folder / BUNDLE_MANIFEST).exists():
        raise UserError(
            f"{folder} is no encoder bundle: give the folder that holds {WEIGHTS_FILE} and {BUNDLE_MANIFEST}, "
            "such as build/demo/pretrain/encoder."
        )
    try:
        said = TypeAdapter(dict[str, Any]).validate_python(read_json(folder / BUNDLE_MANIFEST))
        _check_format(folder, said)
        card = BundleManifest.model_validate(said)
    except ValueError as error:  # no JSON, no text, or other keys and values
        raise UserError(
            f"{folder / BUNDLE_MANIFEST} is damaged ({_first_error(error)}): copy the bundle anew from where it came "
            f"from, or remove it and run {PRETRAIN_COMMAND} again."
        ) from error
    for name in (WEIGHTS_FILE, SELF_TEST_FILE):
        if not (folder / name).exists():
            raise UserError(
                f"{folder} lacks {name}: copy the whole bundle, or run {PRETRAIN_COMMAND} again, which writes "
                "it anew."
            )
    return card


def check_files(folder: Path, manifest: BundleManifest) -> None:
    """Raise UserError where weights or proof are not, bit for bit, what was written."""
    for name in (WEIGHTS_FILE, SELF_TEST_FILE):
        if sha256_file(folder / name) != manifest.sha256.get(name):
            raise UserError(
                f"{folder / name} is damaged, for its SHA-256 is not the one in {BUNDLE_MANIFEST}: copy the "
                f"bundle anew from where it came from, or remove the file and run {PRETRAIN_COMMAND} again."
            )


def _check_format(folder: Path, content: dict[str, Any]) -> None:
    found = content.get("format")
    if found == FORMAT_VERSION:
        return
    newer = isinstance(found, int) and found > FORMAT_VERSION
    cure = (
        "use a newer ssl-pipeline."
        if newer
        else f"run {PRETRAIN_COMMAND} again, which writes it anew."
    )
    raise UserError(
        f"{folder / BUNDLE_MANIFEST} has format {found}, this version reads {FORMAT_VERSION}: {cure}"
    )


def _first_error(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}"
    return "it is no JSON"
