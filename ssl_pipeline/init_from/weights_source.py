"""Base class of the sources of initial weights: their files, tensors and training subjects.

A source maps the tensors of a file to the names of this library's encoders; loading them is the
same for all (`transfer.load_pretrained`). Sources are settings sections, and import torch lazily.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.training_subjects import TrainingSubjects
from ssl_pipeline.io.atomic import sha256_file, sha256_json
from ssl_pipeline.volumes.config import resolve_path

if TYPE_CHECKING:
    from ssl_pipeline.init_from.transfer import PretrainedWeights


class WeightsSource(Section, ABC):
    """Weights in the format `name`; they are identified by content, not by path."""

    name: str
    path: str = Field(min_length=1, description="where the weights lie, from where you run")

    @property
    def weights_path(self) -> Path:
        """The file of the weights."""
        return resolve_path(self.path)

    @property
    def files(self) -> list[Path]:
        """The weights and all files that are read with them; missing ones are skipped."""
        return [self.weights_path]

    @property
    def description(self) -> str:
        """Format and hash of the weights, without a path. Raises UserError as `sha256`."""
        return f"weights in the format of {self.name} (SHA-256 {self.sha256[:12]})"

    @property
    def sha256(self) -> str:
        """Hash of the weights. Raises UserError where they are not there."""
        if not self.weights_path.is_file():
            raise UserError(
                f"init_from.path is {self.path}, where no weights are: correct the path, or "
                "restore the file."
            )
        return sha256_file(self.weights_path)

    @property
    def files_sha256(self) -> str:
        """Hash of all its files. Raises UserError as `sha256`."""
        others = [path.is_file() and sha256_file(path) for path in self.files[1:]]
        return sha256_json([self.sha256, *others])

    def resolve(self) -> "WeightsSource":
        """The same weights, named by what can never come to mean others; itself for a file."""
        return self

    @abstractmethod
    def read(self) -> "PretrainedWeights":
        """Read the tensors. Raises UserError for files that cannot be read or do not fit."""

    def read_training_subjects(self) -> TrainingSubjects:
        """The subjects that the weights were trained on, as far as they are recorded."""
        return TrainingSubjects(
            frozenset(), frozenset(), frozenset(), salt_fingerprint="", is_third_party=True
        )
