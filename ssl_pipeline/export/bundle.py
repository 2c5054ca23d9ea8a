"""Encoder bundles: saving, loading with self-test, and features of new scans."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.embed import Features, embed_prepared, prepare_file
from ssl_pipeline.export.manifest import (
    BUNDLE_MANIFEST,
    README_FILE,
    SELF_TEST_FILE,
    WEIGHTS_FILE,
    BundleManifest,
    check_files,
    read_manifest,
)
from ssl_pipeline.export.model_card import model_card
from ssl_pipeline.export.self_test import (
    TOLERANCE,
    SelfTestInput,
    max_token_difference,
    run_self_test,
    synthetic_input,
)
from ssl_pipeline.io.atomic import atomic_write, sha256_file, write_bytes, write_json, write_text
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.provenance import package_versions
from ssl_pipeline.types import Triple

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder

COMPUTE_PACKAGES = ("torch", "timm")  # packages that decide what tokens are


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder with the preprocessing that it was trained on."""

    model: "Encoder"
    preprocess: Preprocess
    crop_voxels: Triple
    weights_sha256: str

    def embed(self, scan: str | Path, modality: str | None = None) -> Features:
        """Features of one scan: a file, or the folder of a DICOM series.

        `modality` ("CT" or "MR") is needed where the file does not say it. Raises UserError for a
        scan that cannot be read or used.
        """
        return self.embed_prepared(self.prepare(scan, modality))

    def embed_prepared(self, prepared: PreparedVolume) -> Features:
        """Features of a scan that `prepare` gave."""
        return embed_prepared(self.model, self.crop_voxels, prepared)

    def prepare(self, scan: str | Path, modality: str | None = None) -> PreparedVolume:
        """A scan as pretraining's volumes were prepared; `model_input` gives what the model sees.

        Arguments and errors are those of `embed`.
        """
        return prepare_file(self.preprocess, Path(scan), modality)


def save_bundle(
    folder: Path,
    encoder: "Encoder",
    model: ModelConfig,
    preprocess: Preprocess,
    crop_voxels: Triple,
    training_summary: dict[str, Any],
    self_test_input: SelfTestInput | None = None,
) -> None:
    """Write the bundle; `training_summary` goes into its manifest and model card.

    `self_test_input` is stored with the weights: noise unless it is given.
    """
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        weights = {
            name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()
        }
        write_bytes(temporary / WEIGHTS_FILE, save(weights))
        written = _build_encoder(model, temporary / WEIGHTS_FILE)
        stored = run_self_test(written, self_test_input or synthetic_input(crop_voxels))
        write_bytes(temporary / SELF_TEST_FILE, save(stored))
        manifest = BundleManifest(
            model=model,
            preprocess=preprocess,
            crop_voxels=crop_voxels,
            training_summary=training_summary,
            versions={name: package_versions()[name] for name in COMPUTE_PACKAGES},
            sha256={name: sha256_file(temporary / name) for name in (WEIGHTS_FILE, SELF_TEST_FILE)},
        )
        write_json(temporary / BUNDLE_MANIFEST, manifest.model_dump(mode="json"))
        write_text(temporary / README_FILE, model_card(manifest))


def load_encoder(path: str | Path) -> LoadedEncoder:
    """Load an encoder bundle, run its self-test, and return it ready to embed scans.

    Raises UserError where the folder is no bundle, lacks a file, was written by another format
    version, is damaged, or where the encoder gives other tokens than when it was saved.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    model = _build_encoder(manifest.model, folder / WEIGHTS_FILE)
    differs = max_token_difference(model, load_file(folder / SELF_TEST_FILE))
    if not differs <= TOLERANCE:
        then = " and ".join(f"{name} {manifest.versions[name]}" for name in COMPUTE_PACKAGES)
        raise UserError(
            f"The encoder in {folder} gives other tokens for its stored input than when it was "
            f"saved (by up to {differs:.2g}, where rounding makes {TOLERANCE:g} at most): the code "
            f"that computes them has changed, so use the ssl-pipeline that saved it, with {then}."
        )
    return LoadedEncoder(
        model, manifest.preprocess, manifest.crop_voxels, manifest.sha256[WEIGHTS_FILE]
    )


def _build_encoder(model: ModelConfig, weights: Path) -> "Encoder":
    """The encoder of a file of weights, on the CPU; the global random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        encoder = model.build()
    encoder.load_state_dict(load_file(weights))
    return encoder.eval()
