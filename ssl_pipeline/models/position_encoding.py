"""Sine-cosine positions of tokens, in millimetres from the middle of the crop.

Relative to the crop and never to the scanner or the volume: absolute coordinates would let contrast
match views by their position alone. In millimetres, so that the encoder knows the spacing.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

MIN_WAVELENGTH_MM, MAX_WAVELENGTH_MM = 16.0, 1024.0  # wavelengths


def position_encoding(
    centres_mm: Float[Tensor, "batch tokens 3"], dim: int
) -> Float[Tensor, "batch tokens dim"]:
    """Sines and cosines of (z, y, x) at geometrically spaced wavelengths, zeros for the rest.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), sec. 3.5, for three axes.
    """
    count = dim // 6
    steps = torch.linspace(0, 1, count, device=centres_mm.device)
    wavelength = MIN_WAVELENGTH_MM * (MAX_WAVELENGTH_MM / MIN_WAVELENGTH_MM) ** steps
    angle = centres_mm[..., None] * (2 * math.pi / wavelength)
    waves = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)
    return torch.nn.functional.pad(waves, (0, dim - waves.shape[-1]))
