"""Initial weights from an entry of a registry of encoders, such as the champion of a family."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.training_subjects import TrainingSubjects
from ssl_pipeline.init_from.bundle import BundleWeights
from ssl_pipeline.init_from.weights_source import WeightsSource
from ssl_pipeline.registry.entry import ID_DIGITS, SHORT_ID
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
        return self.model_copy(update={"of": self._entry})

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
        return BundleWeights(path=str(self._registry.encoder_folder(self._entry)))

    @property
    def _entry(self) -> str:
        """The whole ID that `of` means; a whole one may be what an alias meant, once frozen."""
        registry = self._registry
        if len(self.of) == ID_DIGITS and not registry.encoder_folder(self.of).exists():
            raise UserError(
                f"init_from starts from entry {self.of[:SHORT_ID]} of {registry.folder}, which is "
                "gone: copy it again from a backup of the registry; or, where an alias meant it "
                "when the cohort was frozen, raise training.cohort to look the alias up again."
            )
        return registry.resolve(self.of)
