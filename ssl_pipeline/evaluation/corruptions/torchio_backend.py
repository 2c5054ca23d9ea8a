"""Backend of corruptions of MR: TorchIO, an optional package.

Perez-Garcia et al. 2021, arXiv:2003.04696.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.corruptions.corruption import ScanImage

if TYPE_CHECKING:
    from torchio import Transform


def import_torchio() -> Any:
    """Import TorchIO. Raises UserError where it is missing."""
    import ssl_pipeline.torchvision_compat  # noqa: F401

    try:
        import torchio
    except ImportError:
        raise UserError(
            "Corruptions of MR need the package torchio: `pip install 'ssl-pipeline[robustness]'`."
        ) from None
    return torchio


def apply_transform(scan: ScanImage, transform: "Transform") -> ScanImage:
    """Apply a transform of TorchIO to a scan, with values scaled to about 0 to 1."""
    import torch

    inside = scan.image[scan.valid]
    low, high = (float(np.percentile(inside, share)) for share in (0.5, 99.5))
    width = max(high - low, 1e-6)
    data = torch.from_numpy((scan.image - low) / width).permute(2, 1, 0)[None].contiguous()
    z_mm, y_mm, x_mm = scan.spacing_mm
    affine = np.diag([x_mm, y_mm, z_mm, 1.0])
    image = import_torchio().ScalarImage(tensor=data, affine=affine)
    found = transform(image).data[0].permute(2, 1, 0).numpy()
    return replace(scan, image=(found * width + low).astype(np.float32))
