"""Reconstruction of one scan's hidden patches from another's visible ones, of the same visit.

Where two sequences share a frame, each is predicted from the tokens of the other alone (as Bachmann
et al. 2022, arXiv:2204.01678, do from any subset of modalities, and Weinzaepfel et al. 2022,
arXiv:2210.10716, from a second view): what helps is anatomy, for neither contrast nor noise is
shared. Positions are in millimetres, so no scan is resampled. Which sequence it predicts the
decoder has to guess, so that visits of many sequences leave it an error of that.
"""

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.objectives.terms.term import SummedTerm, TermCost, decoder_cost

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.term_inputs import Crops, EncodedCrops, EncoderOutputs, Scalar


class PartnerReconstruction(SummedTerm):
    """Hidden patches of each view from the tokens of the other, where these are two scans.

    Only patches inside the other view's crop count; without a common frame none do.
    """

    METRICS: ClassVar[dict[str, str]] = {
        "partner_reconstruction": "loss of the reconstruction from another scan of the visit "
        "(Huber, in units of model input)",
        "partner_share": "fraction of samples whose views are two scans in one frame",
    }

    NEEDS_PARTNERS: ClassVar[bool] = True

    name: Literal["partner_reconstruction"] = "partner_reconstruction"
    background_weight: float = Field(
        0.1, ge=0, le=1, description="weight of a patch outside the body against one inside"
    )
    decoder_depth: int = Field(
        2, ge=1, description="blocks of the decoder, half as wide as a token"
    )

    def metadata_used(self) -> tuple[str, ...]:
        """None: the other scan is the target."""
        return ()

    def min_batch_size(self) -> int:
        """One: samples are independent."""
        return 1

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """Cost of the decoder, on the visible tokens and the hidden patches."""
        width, voxels = model.width // 2, math.prod(model.patch_voxels)
        return decoder_cost(model.width, voxels, width, self.decoder_depth, visible + hidden)

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """The decoder of tokens."""
        from ssl_pipeline.models.decoder import ReconstructionDecoder

        return ReconstructionDecoder(
            encoder.dim, math.prod(encoder.patch), width=encoder.dim // 2, depth=self.decoder_depth
        )

    def count(self, crops: "Crops") -> "Scalar":
        """Weight of all voxels to reconstruct."""
        valid_share = crops.batch.valid_share.gather(1, crops.batch.hidden)
        return (valid_share * self._patch_weight(crops)).sum() * math.prod(crops.patch)

    def sum_and_count(
        self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs"
    ) -> "tuple[Tensor, Tensor]":
        """Sum of the losses of the voxels to reconstruct, and their weight."""
        import torch

        from ssl_pipeline.objectives.losses import masked_huber

        hidden, own = crops.batch.hidden, crops.centres_mm()
        # The patches of the other view come first, where they lie about the middle of this one.
        centres = torch.cat([_swap_views(own) + _offset_mm(crops), own], dim=1)
        tokens, visible = _swap_views(outputs.tokens), _swap_views(crops.batch.visible)
        decoded = head(tokens, visible, own.shape[1] + hidden, centres)
        clean, valid = crops.clean_patches(hidden)
        weight = valid * self._patch_weight(crops)[..., None]
        return masked_huber(decoded.float(), clean, weight), self.count(crops)

    def snapshot_metrics(self, head: "nn.Module", encoded: "EncodedCrops") -> dict[str, float]:
        """How many samples it learns from."""
        return {"partner_share": _is_pair(encoded.crops).float().mean().item()}

    def _patch_weight(self, crops: "Crops") -> "Tensor":
        """Weight of each hidden patch: 0 where the other view shows nothing of its place."""
        import torch

        from ssl_pipeline.views.patches import gather_tokens

        batch = crops.batch
        places = gather_tokens(crops.centres_mm(), batch.hidden) - _offset_mm(crops)
        half_mm = batch.spacing_mm * batch.spacing_mm.new_tensor(crops.size) / 2
        is_shown = (places.abs() <= _swap_views(half_mm)[:, None]).all(dim=-1)
        is_shown &= _is_pair(crops).repeat(2)[:, None]
        weight = torch.where(crops.is_body(batch.hidden), 1.0, self.background_weight)
        return weight * is_shown


def _is_pair(crops: "Crops") -> "Tensor":
    """Whether the views of a sample are two scans in one frame."""
    return crops.batch.meta.has_partner & crops.batch.meta.shares_place


def _offset_mm(crops: "Crops") -> "Tensor":
    """From the middle of each crop to that of its sample's other one: (views, 1, 3)."""
    middles = crops.middles_mm()
    return (_swap_views(middles) - middles)[:, None]


def _swap_views(values: "Tensor") -> "Tensor":
    """First views in the place of second ones, and second ones in that of first ones."""
    return values.roll(len(values) // 2, dims=0)
