"""Make torchvision importable beside a torch build that its compiled part does not fit.

The torchvision wheel of the package index is linked to CUDA libraries. Beside a CPU build of torch
its compiled part fails to load, in silence, and `import torchvision` then stops at the first
operator that this part would have defined; timm, lightly, torchmetrics and peft all import
torchvision. The pipeline needs none of those operators, so this module defines the two that are
missing, and only after an attempt to load the real ones has failed: on a good installation nothing
is defined.

Import it before torchvision, timm, lightly, torchmetrics or peft.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

MISSING_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # keeps them alive, and their operators with them


def define_missing_operators() -> None:
    """Load torchvision's operators, or define the two that its import asks for."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None or _libraries:
        return
    try:
        for compiled in sorted(Path(spec.origin).parent.glob("_C*.so")):
            torch.ops.load_library(str(compiled))
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in MISSING_OPERATORS:
            library.define(schema)
        _libraries.append(library)


define_missing_operators()
