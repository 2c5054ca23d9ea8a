"""A stored input and its tokens, by which a loaded encoder shows that it is the one that was saved.

Hashes notice a changed weight; what they cannot notice is code that has come to mean something
else, here or in a library: another order of axes, another position, another nonlinearity. So the
tokens of one crop are computed anew on loading and compared.

How far they may differ was measured on encoders of all presets, random and trained for 3,000 steps:
between one and two threads, instruction sets from SSE4.2 to AVX-512, and fused and plain attention
a token differs by at most 3e-6, since LayerNorm keeps its numbers about 1. A weight whose sign is
turned moves some token by 1e-3 to 1e-1 in the median of each kind of weight, a GELU by tanh in
place of the exact one moves one by 6e-4, a spacing that is wrong by 1 % by 8e-2. The smallest
weights, and the biases of attention's keys, which no softmax feels, are left to the hash.

The crop is noise unless another is given: it meets every weight, and no patient's voxels travel.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_pipeline.views.config import Triple
from ssl_pipeline.views.randomness import generator

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder

TOLERANCE = 1e-4  # of tokens, whose numbers are about 1
SPACING_MM = (3.0, 1.5, 1.0)  # z, y, x: an exchange of axes is noticed


@dataclass(frozen=True)
class Example:
    """One crop of model input (1, 1, z, y, x), and its spacing in mm (1, 3)."""

    crops: Float[Tensor, "1 1 z y x"]
    spacing_mm: Float[Tensor, "1 3"]


def synthetic(crop_voxels: Triple) -> Example:
    """Noise of the spread of model input, the same wherever it is drawn."""
    noise = generator(0, 0, "proof of an encoder").standard_normal((1, 1, *crop_voxels), "float32")
    return Example(torch.from_numpy(noise), torch.tensor([SPACING_MM]))


@torch.inference_mode()
def prove(encoder: "Encoder", example: Example) -> dict[str, Tensor]:
    """The example and the encoder's tokens (1, tokens, dim) for it, as they are stored."""
    crops, spacing_mm = example.crops, example.spacing_mm
    return {"crops": crops, "spacing_mm": spacing_mm, "tokens": encoder(crops, spacing_mm)}


def difference(encoder: "Encoder", proof: dict[str, Tensor]) -> float:
    """The largest difference between the stored tokens and those computed anew."""
    again = prove(encoder, Example(proof["crops"], proof["spacing_mm"]))["tokens"]
    if again.shape != proof["tokens"].shape:
        return math.inf
    return float((again - proof["tokens"]).abs().max())
