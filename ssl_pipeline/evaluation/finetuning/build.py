"""Networks of fine-tuning, composed of an encoder and what a task puts on it.

Weights are drawn from torch's global generator, those of the head first: they are the same whatever
the adaptation method.
"""

import torch

from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.finetuning.crop_model import EncoderCropModel
from ssl_pipeline.evaluation.finetuning.segmentation_model import SegmentationModel
from ssl_pipeline.models.encoder import Encoder


def compose_crop_model(
    encoder: Encoder, n_classes: int, method: AdaptationMethod
) -> EncoderCropModel:
    """An encoder with a head of classes, or of a number where there are none; ready to adapt."""
    network = EncoderCropModel(encoder, n_classes, method.pool(encoder.dim))
    method.apply(encoder)
    return network


def compose_segmentation_model(
    encoder: Encoder, n_classes: int, method: AdaptationMethod, section: Finetune
) -> SegmentationModel:
    """An encoder with a decoder of voxels, ready to adapt.

    Its weights are channels last, with which convolutions took three quarters of the time on a CPU.
    """
    decoder = section.decoder.build(encoder)
    network = SegmentationModel(encoder, decoder, n_classes)
    method.apply(encoder)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return network
