"""Baseline without pretraining: a small 3D ResNet, trained from scratch.

It gets the crops, steps and labels that fine-tuning gets. ResNet-10 of MONAI (after Hara et al.
2018, arXiv:1711.09577) at a quarter of its width, for small labelled sets.
"""

import ssl_pipeline.torchvision_compat  # noqa: F401  (before monai)

from jaxtyping import Float
from monai.networks.nets.resnet import ResNet
from torch import Tensor

from ssl_pipeline.evaluation.finetuning.crop_model import CropModel

BLOCKS, WIDTHS = [1, 1, 1, 1], [16, 32, 64, 128]


class SmallResNet(CropModel):
    """Crops to classes or a number, without an encoder."""

    def __init__(self, n_classes: int) -> None:
        super().__init__(n_classes)
        self.resnet = ResNet(
            "basic",
            BLOCKS,
            WIDTHS,
            n_input_channels=1,
            conv1_t_size=3,
            conv1_t_stride=2,
            no_max_pool=True,
            num_classes=max(1, n_classes),
        )

    def forward(
        self,
        images: Float[Tensor, "batch z y x"],
        valid: Float[Tensor, "batch z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch outputs"]:
        """Logits of classes, or a number in standard deviations."""
        outputs: Tensor = self.resnet(images[:, None])
        return outputs
