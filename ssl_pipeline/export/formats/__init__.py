"""Export formats that need nothing of this project: one module each, and one line here.

A module has `SUFFIX`, the suffix of its files (empty for a folder), and `write`, which writes a
loaded encoder and returns a short description of what it wrote. It is imported lazily, for some
need large or optional packages; an encoder that a format cannot hold is a UserError.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

if TYPE_CHECKING:
    from ssl_pipeline.export.bundle import LoadedEncoder

FORMATS = {  # what it is, for --help
    "state_dict": "the weights for torch.load, under the encoder's own names",
    "timm": "the weights under the names of timm's VisionTransformer",
    "onnx": "crops and spacing to tokens, computed without torch",
    "nnunet": "a resenc encoder as plans and weights for nnUNetv2_train, in a folder",
}


@runtime_checkable
class Format(Protocol):
    """Interface of the module of a format."""

    SUFFIX: str

    def write(self, encoder: "LoadedEncoder", path: Path) -> str:
        """Write the encoder to `path`; returns what was written, in a few words."""


def load_format(name: str) -> Format:
    """The module of a format."""
    return cast(Format, import_module(f"{__name__}.{name}"))
