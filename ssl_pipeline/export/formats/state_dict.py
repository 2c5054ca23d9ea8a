"""The weights as a plain file of torch: tensors by name, and no class of this project.

`torch.load(path, weights_only=True)` reads it anywhere. It says nothing of positions or of how
scans are prepared; the bundle's README does.
"""

from pathlib import Path

import torch

from ssl_pipeline.export.bundle import LoadedEncoder

SUFFIX = ".pt"


def write(encoder: LoadedEncoder, path: Path) -> str:
    """Write the encoder's weights, whatever its backbone."""
    weights = dict(encoder.model.state_dict())
    torch.save(weights, path)
    return f"{len(weights)} tensors for torch.load"
