"""Masked reconstruction of the clean crop; weight 1 inside the body, less outside."""

import math
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field, model_validator

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.models.unet_config import unet_channels
from ssl_pipeline.monitoring.diagnosis import AlarmRule, Threshold
from ssl_pipeline.objectives.terms.term import (
    FLOPS_PER_PARAMETER,
    SummedTerm,
    TermCost,
    decoder_cost,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.term_inputs import (
        Crops,
        EncodedCrops,
        EncoderOutputs,
        EncoderPass,
        Images,
        Scalar,
    )


class Reconstruction(SummedTerm):
    """Masked reconstruction of the clean crop."""

    METRICS: ClassVar[dict[str, str]] = {
        "reconstruction": "loss of masked reconstruction (Huber, in units of model input or patch)",
        "reconstruction_skill": "fraction of in-painting's error that the model saves inside the "
        "body: 1 perfect, 0 none",
        "gradient_outside_body": "fraction of the reconstruction gradient that lies outside the "
        "body",
    }
    RULES: ClassVar[tuple[AlarmRule, ...]] = (
        (
            "shortcut",
            Threshold(
                "gradient_outside_body",
                maximum=lambda settings: settings.max_gradient_outside,
                message="Of the reconstruction gradient {value:.0%} lies outside the foreground "
                "mask (the alarm is above {limit:.0%}). The mask may miss part of the body: look "
                "at its outline in the report, and draw it or set preprocess.foreground to all. "
                "Where it is right, padding and air are learned: lower "
                "objective.reconstruction.background_weight.",
            ),
        ),
        (
            "shortcut",
            Threshold(
                "reconstruction_skill",
                minimum=lambda settings: settings.min_skill,
                after=lambda settings: settings.skill_after,
                message="Inside the foreground mask, reconstruction is no better than smooth "
                "in-painting (skill {value:.2f}, the alarm is below {limit:g}). The run may be too "
                "short: train longer. The mask may hold little of the body, or air: look at its "
                "outline in the report. Where it is right, background dominates: lower "
                "objective.reconstruction.background_weight or views.max_background.",
            ),
        ),
    )

    name: Literal["reconstruction"] = "reconstruction"
    background_weight: float = Field(
        0.1, ge=0, le=1, description="weight of a patch outside the body against one inside"
    )
    decoder: Literal["tokens", "unet"] = Field(
        "tokens",
        description="tokens: a few blocks over tokens; unet: a U-Net's decoder, from which"
        " fine-tuning can go on (finetune.decoder.start). Behind a convolutional encoder the latter"
        " leaves the projection to tokens as it began",
    )
    decoder_width: int | None = Field(
        None, gt=0, description="width of the decoder of tokens; half the encoder's by default"
    )
    decoder_depth: int = Field(2, ge=1, description="blocks of the decoder of tokens")
    normalize_patches: bool = Field(
        False,
        description="reconstruct each patch normalized by its own mean and standard deviation, so "
        "that texture counts as much as bone; images then take both from the scan, and skill is "
        "not measured",
    )
    decode_ratio: float = Field(
        1.0,
        gt=0,
        le=1,
        description="fraction of the hidden tokens that is decoded, drawn each step",
    )

    @model_validator(mode="after")
    def _check_decoder(self) -> "Reconstruction":
        of_tokens = {"decoder_width", "decoder_depth", "decode_ratio"} & self.model_fields_set
        if self.decoder == "unet" and of_tokens:
            raise ValueError(
                f"{min(of_tokens)} is of the decoder of tokens, and decoder is unet: leave one of"
                " them out"
            )
        return self

    @property
    def passes(self) -> "frozenset[EncoderPass]":
        """Visible patches, through the U-Net's decoder where it is chosen."""
        return frozenset({"sparse_unet" if self.decoder == "unet" else "sparse"})

    def metadata_used(self) -> tuple[str, ...]:
        """None: a crop is its own target."""
        return ()

    def min_batch_size(self) -> int:
        """One: samples are independent."""
        return 1

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """Cost of the decoder of tokens, on the visible ones and those that it decodes.

        Of a U-Net the cost of the last convolution alone.
        """
        if self.decoder == "unet":
            parameters = unet_channels(model)[0] + 1
            voxels = (visible + hidden) * math.prod(model.patch_voxels)
            return TermCost(parameters, FLOPS_PER_PARAMETER * voxels * parameters, voxels)
        width, depth = self.decoder_width or model.width // 2, self.decoder_depth
        decoded = visible + round(self.decode_ratio * hidden)
        return decoder_cost(model.width, math.prod(model.patch_voxels), width, depth, decoded)

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """The decoder of tokens, or the convolution from the U-Net's finest map to voxels."""
        from ssl_pipeline.models.decoder import ReconstructionDecoder
        from ssl_pipeline.models.unet_decoder import voxel_head

        if self.decoder == "unet":
            return voxel_head(encoder)
        width = self.decoder_width or encoder.dim // 2
        return ReconstructionDecoder(
            encoder.dim, math.prod(encoder.patch), width=width, depth=self.decoder_depth
        )

    def count(self, crops: "Crops") -> "Scalar":
        """Weight of all voxels to reconstruct."""
        chosen = self._decoded_tokens(crops)
        weight = crops.batch.valid_share.gather(1, chosen) * self._body_weight(crops, chosen)
        return weight.sum() * math.prod(crops.patch)

    def sum_and_count(
        self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs"
    ) -> "tuple[Tensor, Tensor]":
        """Sum of the losses of the voxels to reconstruct, and their weight."""
        chosen = self._decoded_tokens(crops)
        decoded = self._decode(head, crops, outputs, chosen)
        return self._loss_sum(crops, chosen, decoded), self.count(crops)

    def reconstruct(self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs") -> "Images":
        """Crops with their hidden patches as decoded.

        Normalized patches get the mean and deviation of the scan's own.
        """
        from ssl_pipeline.views.patches import patchify, unpatchify

        hidden = crops.batch.hidden
        mean, unit = self._patch_units(*crops.clean_patches(hidden))
        decoded = self._decode(head, crops, outputs, hidden).float() * unit + mean
        patches = patchify(crops.batch.clean, crops.patch)
        where = hidden[..., None].expand_as(decoded)
        return unpatchify(patches.scatter(1, where, decoded), crops.size, crops.patch)

    def snapshot_metrics(self, head: "nn.Module", encoded: "EncodedCrops") -> dict[str, float]:
        """Skill against in-painting, and how much of the gradient lies outside the body.

        No skill with `normalize_patches`: in-painting does not know the units of a patch.
        """
        outside = self._gradient_outside_body(head, encoded)
        skill = (
            {} if self.normalize_patches else {"reconstruction_skill": self._skill(head, encoded)}
        )
        return {**skill, "gradient_outside_body": outside}

    def _skill(self, head: "nn.Module", encoded: "EncodedCrops") -> float:
        """Reconstruction against in-painting, in hidden, valid voxels of the body."""
        import torch

        from ssl_pipeline.monitoring.inpainting import inpaint, visible_mask, voxel_mask
        from ssl_pipeline.objectives.losses import reconstruction_skill

        crops, batch = encoded.crops, encoded.crops.batch
        with torch.no_grad(), encoded.autocast():
            reconstructed = self.reconstruct(head, crops, encoded.outputs)
        known = visible_mask(batch.visible, batch.body_share.shape[1])
        scored = voxel_mask(~known & (batch.body_share >= 0.5), crops.size, crops.patch)
        filled = inpaint(batch.clean, known, batch.valid, crops.patch)
        return reconstruction_skill(
            reconstructed, filled, batch.clean, scored * batch.valid[:, None]
        )

    def _gradient_outside_body(self, head: "nn.Module", encoded: "EncodedCrops") -> float:
        """Fraction of the gradient at the decoded voxels that lies outside the body."""
        import torch

        from ssl_pipeline.monitoring.gradients import gradient_share_outside
        from ssl_pipeline.views.patches import gather_tokens, patchify

        crops, batch = encoded.crops, encoded.crops.batch
        chosen = self._decoded_tokens(crops)
        with encoded.autocast():
            decoded = self._decode(head, crops, encoded.outputs, chosen)
            total = self._loss_sum(crops, chosen, decoded)
        (gradient,) = torch.autograd.grad(total, decoded)
        valid = gather_tokens(patchify(batch.valid[:, None], crops.patch), chosen) > 0
        return gradient_share_outside(gradient, valid & crops.is_body(chosen)[..., None])

    def _decoded_tokens(self, crops: "Crops") -> "Tensor":
        """The hidden tokens that are decoded: the first of them, which are in random order."""
        hidden = crops.batch.hidden
        return hidden[:, : max(1, round(self.decode_ratio * hidden.shape[1]))]

    def _decode(
        self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs", targets: "Tensor"
    ) -> "Tensor":
        """Voxels of the chosen patches."""
        from ssl_pipeline.views.patches import gather_tokens, patchify

        if self.decoder == "unet":
            return gather_tokens(patchify(head(outputs.sparse_unet[0]), crops.patch), targets)
        tokens, visible = outputs.tokens, crops.batch.visible
        return cast("Tensor", head(tokens, visible, targets, crops.centres_mm()))

    def _loss_sum(self, crops: "Crops", chosen: "Tensor", decoded: "Tensor") -> "Scalar":
        """Sum of the losses of the decoded voxels."""
        from ssl_pipeline.objectives.losses import masked_huber

        clean, valid = crops.clean_patches(chosen)
        mean, unit = self._patch_units(clean, valid)
        weight = valid * self._body_weight(crops, chosen)[..., None]
        return masked_huber(decoded.float(), (clean - mean) / unit, weight)

    def _patch_units(
        self, clean: "Tensor", valid: "Tensor"
    ) -> "tuple[Tensor, Tensor] | tuple[float, float]":
        """Offset and unit of the decoder's output."""
        from ssl_pipeline.objectives.losses import patch_statistics

        return patch_statistics(clean, valid) if self.normalize_patches else (0.0, 1.0)

    def _body_weight(self, crops: "Crops", targets: "Tensor") -> "Tensor":
        import torch

        return torch.where(crops.is_body(targets), 1.0, self.background_weight)
