"""Task models: saving a fine-tuned network, and loading it to predict for new scans."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.prediction.predictor import Prediction, ScanPredictor
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.bundle import COMPUTE_PACKAGES
from ssl_pipeline.export.embed import embed_prepared, prepare_file
from ssl_pipeline.export.manifest import SELF_TEST_FILE
from ssl_pipeline.export.owner_files import README_FILE, copy_owner_files
from ssl_pipeline.export.self_test import TOLERANCE, synthetic_input
from ssl_pipeline.export.stored_values import ScanHints
from ssl_pipeline.export.task_model.card import model_card
from ssl_pipeline.export.task_model.manifest import (
    FEATURES_FILE,
    MODEL_FILES,
    MODEL_MANIFEST,
    NETWORK_FILE,
    ModelManifest,
    read_model_manifest,
)
from ssl_pipeline.export.task_model.self_test import output_difference, run_self_test
from ssl_pipeline.export.task_model.similarity import FeatureRows, distance, unlike_distance
from ssl_pipeline.io.atomic import atomic_write, sha256_file, write_bytes, write_text
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.provenance import package_versions
from ssl_pipeline.types import Triple

if TYPE_CHECKING:
    from torch import nn

# Two models whose manifests agree in these take the same crops of the same volumes.
ENSEMBLE_FIELDS = ("crop_voxels", "preprocess", "quality", "stored_values")
GENERATED_FILES = (MODEL_MANIFEST, *MODEL_FILES, training_subjects.FILE_NAME)


@dataclass(frozen=True)
class ScanPrediction:
    """The prediction for a scan, with the metadata of the scan and a warning, which may be empty.

    The label map, where there is one, lies on the scan's own grid: save it with
    `prepared.meta.source_affine`.
    """

    prediction: Prediction
    prepared: PreparedVolume
    distance: float  # to the training scans, 0 to 2
    warning: str


@dataclass(frozen=True)
class LoadedModel:
    """A task model, or an ensemble of several, ready to predict."""

    predictor: ScanPredictor
    manifest: ModelManifest
    training_features: FeatureRows

    def predict(
        self,
        scan: str | Path,
        modality: str | None = None,
        *,
        root: str | None = None,
        intensity_offset: float | None = None,
        missing_value: float | None = None,
    ) -> ScanPrediction:
        """The prediction for one scan: a file, or the folder of a DICOM series.

        Arguments and errors are those of `LoadedEncoder.embed`.
        """
        hints = ScanHints(modality, root, intensity_offset, missing_value)
        return self.predict_prepared(prepare_file(self.manifest, Path(scan), hints))

    def predict_prepared(self, prepared: PreparedVolume) -> ScanPrediction:
        """The prediction for a scan that is prepared. UserError for a modality never seen."""
        known = self.manifest.training_summary["modalities"]
        if prepared.meta.modality not in known:
            raise UserError(
                f"this model was trained on {' and '.join(known)}, and the scan is "
                f"{prepared.meta.modality}."
            )
        features = embed_prepared(self.encoder, self.manifest.crop_voxels, prepared).vector
        far = distance(self.training_features, features)
        limit = self.manifest.unlike_distance
        warning = (
            f"unlike the training scans: distance {far:.3f}, at most {limit:.3f} for 95 % of them"
            if limit is not None and far > limit
            else ""
        )
        return ScanPrediction(self.predictor.predict(prepared), prepared, far, warning)

    def to(self, device: str) -> "LoadedModel":
        """The same, computing on a device."""
        for network in self.predictor.networks:
            network.to(device)
        return self

    @property
    def encoder(self) -> Encoder:
        """The encoder of the first network."""
        return _encoder_of(self.predictor.networks[0])


def save_model(
    folder: Path,
    network: "nn.Module",
    contract: dict[str, Any],
    training_features: FeatureRows,
) -> None:
    """Write a task model; `contract` has the manifest's fields but for those of its files."""
    manifest = ModelManifest(
        **contract,
        unlike_distance=unlike_distance(training_features),
        versions={name: package_versions()[name] for name in COMPUTE_PACKAGES},
        sha256={},
    )
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        write_bytes(temporary / NETWORK_FILE, save(state))
        written = _build_network(manifest, temporary / NETWORK_FILE)
        noise = synthetic_input(manifest.crop_voxels)
        stored = run_self_test(_predictor(manifest, [written]), written, noise)
        write_bytes(temporary / SELF_TEST_FILE, save(stored))
        features = {"features": torch.from_numpy(training_features)}
        write_bytes(temporary / FEATURES_FILE, save(features))
        hashes = {name: sha256_file(temporary / name) for name in MODEL_FILES}
        manifest = manifest.model_copy(update={"sha256": hashes})
        # Keys are not sorted: the order of the classes is that of the network's outputs.
        write_text(temporary / MODEL_MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        write_text(temporary / README_FILE, model_card(manifest))
        copy_owner_files(
            folder,
            temporary,
            GENERATED_FILES,
            lambda earlier: model_card(read_model_manifest(earlier)),
        )


def load_model(path: str | Path, *more: str | Path) -> LoadedModel:
    """Load a task model, run its self-test, and return it ready to predict.

    With `more` models of the same task it is an ensemble, whose probabilities or numbers are the
    means of theirs. Raises UserError where a folder is no task model, is damaged, gives other
    outputs than when it was saved, or fits none of the others.
    """
    folders = [Path(each) for each in (path, *more)]
    manifests = [read_model_manifest(folder) for folder in folders]
    for folder, manifest in zip(folders[1:], manifests[1:], strict=True):
        _check_ensemble(folders[0], manifests[0], folder, manifest)
    networks = [
        _build_network(manifest, folder / NETWORK_FILE)
        for folder, manifest in zip(folders, manifests, strict=True)
    ]
    predictor = _predictor(manifests[0], networks)
    for folder, manifest, network in zip(folders, manifests, networks, strict=True):
        _check_outputs(folder, manifest, predictor, network)
    predictor.temperatures = [
        manifest.calibration.temperature if manifest.calibration else 1.0 for manifest in manifests
    ]
    features = load_file(folders[0] / FEATURES_FILE)["features"].numpy()
    return LoadedModel(predictor, manifests[0], features)


def training_vectors(
    network: "nn.Module", crop: Triple, volumes: Iterable[PreparedVolume]
) -> FeatureRows:
    """A vector (n, dim) of each training volume, by the network's encoder."""
    encoder = _encoder_of(network)
    return np.stack([embed_prepared(encoder, crop, volume).vector for volume in volumes])


def _encoder_of(network: "nn.Module") -> Encoder:
    encoder = network.get_submodule("encoder")
    assert isinstance(encoder, Encoder)
    return encoder


def _predictor(manifest: ModelManifest, networks: Sequence["nn.Module"]) -> ScanPredictor:
    return manifest.task.predictor(networks, manifest.finetune, manifest.crop_voxels)


def _build_network(manifest: ModelManifest, weights: Path) -> "nn.Module":
    """The network of a file of weights, on the CPU; the global random state is unchanged."""
    (method,) = manifest.finetune.methods
    with torch.random.fork_rng(devices=[]):
        network = manifest.task.build_network(manifest.model.build(), method, manifest.finetune)
    method.merge(_encoder_of(network))
    network.load_state_dict(load_file(weights))
    return network.eval()


def _check_ensemble(
    first: Path, manifest: ModelManifest, other: Path, other_manifest: ModelManifest
) -> None:
    """Raise UserError where the predictions of two models cannot be averaged."""
    if _question(manifest.task) != _question(other_manifest.task):
        raise UserError(
            f"{first} and {other} have different classes, or their tasks are of different kinds: "
            "an ensemble is of models of one task."
        )
    for name in ENSEMBLE_FIELDS:
        if getattr(manifest, name) != getattr(other_manifest, name):
            raise UserError(
                f"{first} and {other} differ in `{name}`, so they take different volumes: "
                "predict with each of them alone."
            )


def _question(task: Task) -> tuple[object, ...]:
    """What a task asks: its classes in the order of their outputs, or whose number it predicts."""
    return task.kind, tuple(task.classes.items()) or task.truth_names()


def _check_outputs(
    folder: Path, manifest: ModelManifest, predictor: ScanPredictor, network: "nn.Module"
) -> None:
    """Raise UserError where a network gives other outputs than when it was saved."""
    differs = output_difference(predictor, network, load_file(folder / SELF_TEST_FILE))
    if not differs <= TOLERANCE:
        then = " and ".join(f"{name} {manifest.versions[name]}" for name in COMPUTE_PACKAGES)
        raise UserError(
            f"The network in {folder} gives other outputs for its stored input than when it was "
            f"saved (by up to {differs:.2g}): use the ssl-pipeline that saved it, with {then}."
        )
