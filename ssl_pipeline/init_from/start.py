"""What every adapter is: where weights lie, what they hold, and whom they have seen.

An adapter says under which names of this library's encoders a file's tensors go; what becomes of
them is the same for all (`take_over`). Sections, so that no torch is imported before it is needed.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ssl_pipeline.atomic import sha256_file, sha256_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.trained_on import TrainedOn
from ssl_pipeline.section import Section
from ssl_pipeline.volumes.dataset import resolve

if TYPE_CHECKING:
    from ssl_pipeline.init_from.take_over import Found


class Start(Section, ABC):
    """Weights in the format that `name` says, whose content counts and whose place does not."""

    name: str
    path: str = Field(min_length=1, description="where the weights lie, from where you run")

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return resolve(self.path)

    @property
    def files(self) -> list[Path]:
        """The weights, and all else that is read with them; what is not there is left out."""
        return [self.weights]

    @property
    def source(self) -> str:
        """What is told of where the weights come from, which is no path; UserError as `sha256`."""
        return f"weights in the format of {self.name} (SHA-256 {self.sha256[:12]})"

    @property
    def sha256(self) -> str:
        """Hash of the weights. Raises UserError where they are not there."""
        if not self.weights.is_file():
            raise UserError(
                f"init_from.path is {self.path}, where no weights are: correct the path, or bring "
                "the file back."
            )
        return sha256_file(self.weights)

    @property
    def digest(self) -> str:
        """Hash of all its files. Raises UserError as `sha256`."""
        others = [path.is_file() and sha256_file(path) for path in self.files[1:]]
        return sha256_json([self.sha256, *others])

    @abstractmethod
    def read(self) -> "Found":
        """The tensors. Raises UserError for files that cannot be read or are of another kind."""

    def seen(self) -> TrainedOn:
        """Whom the weights were trained on, as far as they say it."""
        return TrainedOn(frozenset(), frozenset(), frozenset(), salt="", foreign=True)
