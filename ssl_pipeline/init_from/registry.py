"""Initial weights from an entry of a registry of encoders, such as the champion of a family."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ssl_pipeline.export.training_subjects import TrainingSubjects
from ssl_pipeline.init_from.bundle import BundleWeights
from ssl_pipeline.init_from.weights_source import WeightsSource
from ssl_pipeline.registry.registry import Registry
from ssl_pipeline.volumes.config import resolve_path

if TYPE_CHECKING:
    from ssl_pipeline.init_from.transfer import PretrainedWeights


class RegistryWeights(WeightsSource):
    """The encoder of an entry of a registry."""

    name: Literal["registry"] = "registry"
    path: str = Field(min_length=1, description="folder of the registry, from where you run")
    of: str = Field(
        min_length=1,
        description="NAME@ALIAS, as it points when the cohort is frozen, or the beginning of an ID",
    )

    @property
    def weights_path(self) -> Path:
        """The file of the weights in the entry. Raises UserError where `of` means no entry."""
        return self._bundle.weights_path

    @property
    def files(self) -> list[Path]:
        """Those of the entry's bundle."""
        return self._bundle.files

    def resolve(self) -> WeightsSource:
        """The same with the whole ID in place of an alias. Raises UserError as `weights_path`."""
        return self.model_copy(update={"of": self._registry.resolve(self.of)})

    def read(self) -> "PretrainedWeights":
        """The encoder's tensors, under the names that they have."""
        return self._bundle.read()

    def read_training_subjects(self) -> TrainingSubjects:
        """Read the list beside the weights; unknown where there is none."""
        return self._bundle.read_training_subjects()

    @property
    def _registry(self) -> Registry:
        return Registry(resolve_path(self.path))

    @property
    def _bundle(self) -> BundleWeights:
        registry = self._registry
        return BundleWeights(path=str(registry.encoder_folder(registry.resolve(self.of))))
