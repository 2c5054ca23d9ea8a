"""Initial weights from an encoder bundle of this library, such as one of another study.

Patch size, registers and layer scale may be others than the bundle's.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.manifest import BUNDLE_MANIFEST, WEIGHTS_FILE
from ssl_pipeline.init_from.weights_source import WeightsSource
from ssl_pipeline.volumes.config import resolve_path

if TYPE_CHECKING:
    from ssl_pipeline.init_from.transfer import PretrainedWeights


class BundleWeights(WeightsSource):
    """An encoder bundle of this pipeline."""

    name: Literal["bundle"] = "bundle"
    path: str = Field(
        min_length=1,
        description="folder of an encoder, such as build/demo/pretrain/encoder, from where you run",
    )

    @property
    def weights_path(self) -> Path:
        """The file of the weights in the folder."""
        return resolve_path(self.path) / WEIGHTS_FILE

    @property
    def files(self) -> list[Path]:
        """Weights, manifest, and the list of training subjects."""
        return [
            self.weights_path.with_name(name)
            for name in (WEIGHTS_FILE, BUNDLE_MANIFEST, training_subjects.FILE_NAME)
        ]

    def read(self) -> "PretrainedWeights":
        """The encoder's tensors, under the names that they have."""
        from ssl_pipeline.export.bundle import load_encoder
        from ssl_pipeline.init_from.transfer import EMBEDDING_WEIGHT, PretrainedWeights
        from ssl_pipeline.models.vit import ViTEncoder

        model = load_encoder(self.weights_path.parent).model
        tensors = dict(model.state_dict())
        kernel, activation = None, ""
        if isinstance(model, ViTEncoder):
            activation = model.activation
            kernel = tensors.pop(EMBEDDING_WEIGHT).unflatten(1, model.patch)
        unknown = ("their training subjects are not known",)
        notes = unknown if self.read_training_subjects().is_unknown else ()
        return PretrainedWeights(tensors, kernel, activation, notes=notes)

    def read_training_subjects(self) -> training_subjects.TrainingSubjects:
        """Read the list beside the weights; unknown where there is none."""
        nobody: frozenset[str] = frozenset()
        unknown = training_subjects.TrainingSubjects(
            nobody, nobody, nobody, salt_fingerprint="", is_unknown=True
        )
        return training_subjects.read(self.weights_path.parent) or unknown
