"""Export formats that need nothing of this project: one module each, and one line here.

A module has `SUFFIX`, the suffix of its files (empty for a folder), and `write`, which writes a
loaded encoder or task model and returns a short description of what it wrote. It is imported
lazily, for some need large or optional packages; what a format cannot hold is a UserError.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypeVar, cast, runtime_checkable

if TYPE_CHECKING:
    from ssl_pipeline.export.bundle import LoadedEncoder
    from ssl_pipeline.export.task_model.bundle import LoadedModel

ENCODER_FORMATS = {  # what it is, for --help
    "state_dict": "the weights for torch.load, under the encoder's own names",
    "timm": "the weights under the names of timm's VisionTransformer",
    "onnx": "crops and spacing to tokens, computed without torch",
    "nnunet": "a resenc encoder as plans and weights for nnUNetv2_train, in a folder",
}
MODEL_FORMATS = {
    "monai-bundle": "a task model of a segmentation for `monai.bundle run`, in a folder",
}
FORMATS = ENCODER_FORMATS | MODEL_FORMATS

Source = TypeVar("Source", "LoadedEncoder", "LoadedModel", contravariant=True)


@runtime_checkable
class Format(Protocol[Source]):
    """Interface of the module of a format."""

    SUFFIX: str

    def write(self, source: Source, path: Path, /) -> str:
        """Write an encoder or a task model to `path`; returns what was written, in a few words."""


def load_encoder_format(name: str) -> "Format[LoadedEncoder]":
    """The module of a format of encoders."""
    return cast("Format[LoadedEncoder]", _load_module(name))


def load_model_format(name: str) -> "Format[LoadedModel]":
    """The module of a format of task models."""
    return cast("Format[LoadedModel]", _load_module(name))


def _load_module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name.replace('-', '_')}")
