"""The self-test of an encoder bundle: a stored input and its tokens, compared on loading.

Hashes detect changed weights, but not changed code, here or in a library: another order of axes,
another position encoding, another nonlinearity. So the tokens of one crop are computed again on
loading and compared.

It is computed in float64, on the CPU. In float32 no bound held: between one and two threads and
instruction sets from SSE4.2 to AVX-512 a token of the vision transformers differs by 3e-6, of the
large convolutional backbone by 5e-5, and by 1 where a crop has two tokens, for an instance norm of
two voxels is a sign. In float64 the same differ by 3e-8 (sines are float32), 8e-14 and 4e-9, and
storing tokens as float32 rounds by 2e-7. Against that, the sign of one weight, turned, moves some
token by 2e-5 in the least of 456 drawn from all kinds, and by 1e-3 to 1e-1 in the median of a kind
(attention's key biases alone are felt by no softmax, and left to the hash); a GELU by tanh in place
of the exact one moves one by 6e-4, a spacing that is wrong by 1 % by 8e-2.

The crop is noise unless another is given: it reaches every weight, and holds no patient data.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_pipeline.types import Triple
from ssl_pipeline.views.rng import generator

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder

TOLERANCE = 1e-5  # of tokens, whose numbers are about 1
SPACING_MM = (3.0, 1.5, 1.0)  # z, y, x: an exchange of axes is noticed


@dataclass(frozen=True)
class SelfTestInput:
    """One crop of model input (1, 1, z, y, x), and its spacing in mm (1, 3)."""

    crops: Float[Tensor, "1 1 z y x"]
    spacing_mm: Float[Tensor, "1 3"]


def synthetic_input(crop_voxels: Triple) -> SelfTestInput:
    """Noise with the standard deviation of model input, the same on every machine."""
    noise = generator(0, 0, "proof of an encoder").standard_normal((1, 1, *crop_voxels), "float32")
    return SelfTestInput(torch.from_numpy(noise), torch.tensor([SPACING_MM]))


@torch.inference_mode()
def run_self_test(encoder: "Encoder", test_input: SelfTestInput) -> dict[str, Tensor]:
    """The input and the encoder's tokens (1, tokens, dim) for it, as they are stored."""
    crops, spacing_mm = test_input.crops, test_input.spacing_mm
    tokens = deepcopy(encoder).double()(crops.double(), spacing_mm.double())
    return {"crops": crops, "spacing_mm": spacing_mm, "tokens": tokens.float()}


def max_token_difference(encoder: "Encoder", stored: dict[str, Tensor]) -> float:
    """The largest difference between the stored tokens and those computed now."""
    again = run_self_test(encoder, SelfTestInput(stored["crops"], stored["spacing_mm"]))["tokens"]
    if again.shape != stored["tokens"].shape:
        return math.inf
    return float((again - stored["tokens"]).abs().max())
