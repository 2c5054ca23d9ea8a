"""Initial weights from MONAI's 3D vision transformers, alone or as the encoder of a larger network.

`ViT`, `ViTAutoEnc` and `MaskedAutoEncoderViT` share the names of their parts. MONAI's axes are of a
NIfTI, (x, y, z), and ours (z, y, x): the patch embedding is turned, or scans would be seen rotated.
Several channels are summed, as if each showed the scan.
"""

import re
from typing import TYPE_CHECKING, Literal

from ssl_pipeline.init_from.weights_source import WeightsSource

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_pipeline.init_from.transfer import PretrainedWeights

KERNEL_NAME = re.compile(r"patch_embedding\.patch_embeddings\.(1\.)?weight")
# Made in every block, never called.
UNUSED_NAMES = re.compile(r"blocks\.\d+\.(norm_)?cross_attn\..+")
NAME_RULES = (
    (re.compile(r"patch_embedding\.patch_embeddings\.(?:1\.)?bias"), "embed.bias"),
    (re.compile(r"(blocks\.\d+\.)attn\.out_proj\.(.+)"), r"\1attn.proj.\2"),
    (re.compile(r"(blocks\.\d+\.)mlp\.linear([12])\.(.+)"), r"\1mlp.fc\2.\3"),
    (re.compile(r"blocks\.\d+\.(weight|bias)"), r"norm.\1"),  # the end of a masked autoencoder's
    (re.compile(r"(blocks\..+|norm\.weight|norm\.bias)"), r"\1"),
)


class MonaiWeights(WeightsSource):
    """A state dict of MONAI's ViT, ViTAutoEnc or MaskedAutoEncoderViT."""

    name: Literal["monai"] = "monai"

    def read(self) -> "PretrainedWeights":
        """Its tensors under our names."""
        from ssl_pipeline.init_from.transfer import THIRD_PARTY_NOTES, PretrainedWeights
        from ssl_pipeline.init_from.weights_file import read_network

        tensors, left = read_network(self.weights_path, KERNEL_NAME)
        found, kernel = {}, None
        for name, tensor in tensors.items():
            ours = _encoder_name(name)
            if KERNEL_NAME.fullmatch(name):
                kernel = _patch_kernel(tensor)
            elif ours:
                found[ours] = tensor
            else:
                left.append(name)
        return PretrainedWeights(found, kernel, unused_names=tuple(left), notes=THIRD_PARTY_NOTES)


def _encoder_name(name: str) -> str | None:
    if UNUSED_NAMES.fullmatch(name):
        return None
    rules = ((rule.fullmatch(name), new) for rule, new in NAME_RULES)
    return next((match.expand(new) for match, new in rules if match), None)


def _patch_kernel(weight: "Tensor") -> "Tensor | None":
    """(width, z, y, x) of a convolution, or of a linear layer over a cube's voxels; else None."""
    if weight.ndim == 2:
        side = round(weight.shape[1] ** (1 / 3))
        if side**3 != weight.shape[1]:
            return None
        weight = weight.unflatten(1, (1, side, side, side))
    return weight.sum(1).permute(0, 3, 2, 1) if weight.ndim == 5 else None
