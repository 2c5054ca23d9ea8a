"""Convolutions of volumes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

FAULTY_DEPTH = 2


class Convolution(nn.Conv3d):
    """A convolution whose gradients are right in bf16 on a CPU, too.

    Where a map is two voxels deep, oneDNN's gradient of the weights in bf16 has memory in it that
    nobody has written (torch 2.13 on AVX-512), so such a map, which is small, is computed in fp32.
    """

    def forward(
        self, input: Float[Tensor, "batch channels z y x"]
    ) -> Float[Tensor, "batch outputs z2 y2 x2"]:
        """The convolved maps; in fp32 where bf16 would be wrong."""
        if input.device.type != "cpu" or input.shape[2] != FAULTY_DEPTH:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))
