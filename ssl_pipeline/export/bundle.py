"""Encoder bundles: saving, loading with self-test, and features of new scans."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.embed import Features, embed_prepared, prepare_file
from ssl_pipeline.export.manifest import (
    BUNDLE_MANIFEST,
    DECODER_FILE,
    SELF_TEST_FILE,
    WEIGHTS_FILE,
    BundleManifest,
    check_files,
    read_manifest,
)
from ssl_pipeline.export.model_card import model_card
from ssl_pipeline.export.owner_files import README_FILE, copy_owner_files
from ssl_pipeline.export.self_test import (
    TOLERANCE,
    SelfTestInput,
    max_token_difference,
    run_self_test,
    synthetic_input,
)
from ssl_pipeline.export.stored_values import ScanHints, StoredValues
from ssl_pipeline.io.atomic import atomic_write, sha256_file, write_bytes, write_json, write_text
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.provenance import package_versions
from ssl_pipeline.types import Triple
from ssl_pipeline.volumes.quality_control import QualityThresholds

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.models.unet_decoder import UNetDecoder

COMPUTE_PACKAGES = ("torch", "timm")  # packages that decide what tokens are
GENERATED_FILES = (
    *(BUNDLE_MANIFEST, WEIGHTS_FILE, DECODER_FILE, SELF_TEST_FILE),
    training_subjects.FILE_NAME,
)


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder with the preprocessing and quality control of the scans it was trained on."""

    model: "Encoder"
    manifest: BundleManifest
    decoder: dict[str, Tensor] | None = None  # tensors of the U-Net's that was trained along

    @property
    def crop_voxels(self) -> Triple:
        """Size of pretraining's crops (z, y, x), in voxels."""
        return self.manifest.crop_voxels

    def embed(
        self,
        scan: str | Path,
        modality: str | None = None,
        *,
        root: str | None = None,
        intensity_offset: float | None = None,
        missing_value: float | None = None,
    ) -> Features:
        """Features of one scan: a file, or the folder of a DICOM series.

        `modality` ("CT" or "MR") is needed where the file does not say it. Values are taken to be
        stored as those of the training scans were, or a CT's to be Hounsfield units; `root` names
        the study's root that the scan is like, where roots differ. `intensity_offset` and
        `missing_value` state them instead, as they do for a root. Raises UserError for a scan that
        cannot be read, that quality control rejects, or whose values may mean several things.
        """
        prepared = self.prepare(
            scan,
            modality,
            root=root,
            intensity_offset=intensity_offset,
            missing_value=missing_value,
        )
        return self.embed_prepared(prepared)

    def embed_prepared(self, prepared: PreparedVolume) -> Features:
        """Features of a scan that `prepare` gave."""
        return embed_prepared(self.model, self.crop_voxels, prepared)

    def prepare(
        self,
        scan: str | Path,
        modality: str | None = None,
        *,
        root: str | None = None,
        intensity_offset: float | None = None,
        missing_value: float | None = None,
    ) -> PreparedVolume:
        """A scan as pretraining's volumes were prepared; `model_input` gives what the model sees.

        Arguments and errors are those of `embed`.
        """
        hints = ScanHints(modality, root, intensity_offset, missing_value)
        return prepare_file(self.manifest, Path(scan), hints)


def save_bundle(
    folder: Path,
    encoder: "Encoder",
    model: ModelConfig,
    preprocess: Preprocess,
    crop_voxels: Triple,
    training_summary: dict[str, Any],
    self_test_input: SelfTestInput | None = None,
    *,
    quality: QualityThresholds | None = None,
    stored_values: tuple[StoredValues, ...] = (),
    decoder: "UNetDecoder | None" = None,
) -> None:
    """Write the bundle, with the decoder where one was trained along.

    `training_summary` goes into its manifest and model card.
    `quality` and `stored_values` are those of the training scans: by default the usual thresholds,
    and values without offset or missing value. `self_test_input` is stored with the weights: noise
    unless it is given. Files of the owner of an earlier bundle in this folder stay, an edited
    README among them. Raises UserError where a weight is no finite number.
    """
    _check_finite(encoder)
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        write_bytes(temporary / WEIGHTS_FILE, _weights(encoder))
        if decoder:
            write_bytes(temporary / DECODER_FILE, _weights(decoder))
        written = _build_encoder(model, temporary / WEIGHTS_FILE)
        stored = run_self_test(written, self_test_input or synthetic_input(crop_voxels))
        write_bytes(temporary / SELF_TEST_FILE, save(stored))
        manifest = BundleManifest(
            model=model,
            quality=quality or QualityThresholds(),
            stored_values=stored_values,
            preprocess=preprocess,
            crop_voxels=crop_voxels,
            training_summary=training_summary,
            versions={name: package_versions()[name] for name in COMPUTE_PACKAGES},
            sha256={
                name: sha256_file(temporary / name)
                for name in (WEIGHTS_FILE, SELF_TEST_FILE, DECODER_FILE)
                if (temporary / name).exists()
            },
        )
        write_json(temporary / BUNDLE_MANIFEST, manifest.model_dump(mode="json"))
        write_text(temporary / README_FILE, model_card(manifest))
        copy_owner_files(
            folder, temporary, GENERATED_FILES, lambda earlier: model_card(read_manifest(earlier))
        )


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
    decoder = load_file(folder / DECODER_FILE) if manifest.has_decoder else None
    return LoadedEncoder(model, manifest, decoder)


def _check_finite(encoder: "Encoder") -> None:
    for name, weight in encoder.state_dict().items():
        if not weight.isfinite().all():
            raise UserError(
                f"The weights {name} of the encoder are not finite, so nothing is written: lower "
                "training.learning_rate, or train in fp32, and train anew."
            )


def _weights(module: torch.nn.Module) -> bytes:
    """The bytes of a file of the weights of a module."""
    state = module.state_dict().items()
    return save({name: value.detach().cpu().contiguous() for name, value in state})


def _build_encoder(model: ModelConfig, weights: Path) -> "Encoder":
    """The encoder of a file of weights, on the CPU; the global random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        encoder = model.build()
    encoder.load_state_dict(load_file(weights))
    return encoder.eval()
