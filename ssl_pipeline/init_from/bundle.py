"""Start from an encoder bundle of this library, such as one that another study trained.

Patch size, registers and layer scale may be others than the bundle's.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ssl_pipeline.export import trained_on
from ssl_pipeline.export.card import CARD, WEIGHTS
from ssl_pipeline.init_from.start import Start
from ssl_pipeline.volumes.dataset import resolve

if TYPE_CHECKING:
    from ssl_pipeline.init_from.take_over import Found


class Bundle(Start):
    """An encoder that this pipeline trained."""

    name: Literal["bundle"] = "bundle"
    path: str = Field(
        min_length=1,
        description="folder of an encoder, such as build/demo/pretrain/encoder, from where you run",
    )

    @property
    def weights(self) -> Path:
        """The file of the weights in the folder."""
        return resolve(self.path) / WEIGHTS

    @property
    def files(self) -> list[Path]:
        """Weights, card, and whom the encoder has seen."""
        return [self.weights.with_name(name) for name in (WEIGHTS, CARD, trained_on.NAME)]

    def read(self) -> "Found":
        """The encoder's tensors, under the names that they have."""
        from ssl_pipeline.export.bundle import load_encoder
        from ssl_pipeline.init_from.take_over import EMBEDDING, Found
        from ssl_pipeline.models.vit import ViTEncoder

        model = load_encoder(self.weights.parent).model
        tensors = dict(model.state_dict())
        kernel = None
        if isinstance(model, ViTEncoder):
            kernel = tensors.pop(EMBEDDING).unflatten(1, model.patch)
        unknown = ("whom they were trained on is not known",)
        return Found(tensors, kernel, notes=unknown if self.seen().untold else ())

    def seen(self) -> trained_on.TrainedOn:
        """What lies beside the weights."""
        nobody: frozenset[str] = frozenset()
        untold = trained_on.TrainedOn(nobody, nobody, nobody, salt="", untold=True)
        return trained_on.read(self.weights.parent) or untold
