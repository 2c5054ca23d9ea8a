"""What terms compute their losses and metrics from: crops, tokens, and metadata of samples."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_pipeline.types import Triple, triple
from ssl_pipeline.views.collate import SampleBatch
from ssl_pipeline.views.crops import Batch
from ssl_pipeline.views.patches import gather_tokens, patch_centres_mm, patchify, pool_tokens

Images = Float[Tensor, "views 1 z y x"]
Tokens = Float[Tensor, "views visible dim"]
LocalTokens = Float[Tensor, "locals box features"]
Vectors = Float[Tensor, "samples vector"]
Scalar = Float[Tensor, ""]
Rows = Float[Tensor, "rows dim"]
RowWeight = Float[Tensor, " rows"]
Maps = list[Float[Tensor, "views _ _ _ _"]]
# Of the encoder over the visible patches or whole crops, alone or through the U-Net's decoder, or
# over local crops; of its teacher over whole crops; of the initial encoder over visible patches.
EncoderPass = Literal["sparse", "dense", "sparse_unet", "dense_unet", "local", "teacher", "initial"]


@dataclass(frozen=True)
class Crops:
    """The crops of a batch, cut into patches."""

    batch: Batch
    patch: Triple

    @property
    def size(self) -> Triple:
        """Voxels of a crop."""
        return triple(self.batch.clean.shape[2:])

    def centres_mm(self) -> Float[Tensor, "views tokens 3"]:
        """The middles of all patches, in the frame of their crop."""
        return patch_centres_mm(self.size, self.patch, self.batch.spacing_mm)

    def middles_mm(self) -> Float[Tensor, "views 3"]:
        """The middles of the crops, in the frame that both views of a sample share."""
        spacing = self.batch.spacing_mm
        return self.batch.start_mm + spacing * spacing.new_tensor(self.size) / 2

    def places_mm(self) -> Float[Tensor, "views tokens 3"]:
        """The middles of all patches, in that frame."""
        return self.centres_mm() + self.middles_mm()[:, None]

    def patch_mm(self) -> Float[Tensor, "samples 3"]:
        """Sides of a patch of the first view of each sample."""
        first, _ = self.batch.spacing_mm.chunk(2)
        return first * first.new_tensor(self.patch)

    def clean_patches(
        self, chosen: Int[Tensor, "views chosen"]
    ) -> tuple[Float[Tensor, "views chosen voxels"], Float[Tensor, "views chosen voxels"]]:
        """Voxels of patches before augmentation, and which of them are valid."""
        clean, valid = (
            gather_tokens(patchify(each, self.patch), chosen)
            for each in (self.batch.clean, self.batch.valid[:, None])
        )
        return clean, valid

    def is_body(self, chosen: Int[Tensor, "views chosen"]) -> Bool[Tensor, "views chosen"]:
        """Whether at least half of a patch is inside the body."""
        return self.batch.body_share.gather(1, chosen) >= 0.5

    def pool_body(self, tokens: Tokens) -> Float[Tensor, "views dim"]:
        """The mean over the visible tokens inside the body."""
        return pool_tokens(tokens, self.is_body(self.batch.visible).to(tokens.dtype))

    def pool_local_body(self, tokens: LocalTokens) -> Float[Tensor, "locals features"]:
        """The mean over the tokens of each local crop inside the body, view after view."""
        inside = self.is_body(self.batch.local.flatten(1)).view_as(self.batch.local).flatten(0, 1)
        return pool_tokens(tokens, inside.to(tokens.dtype))

    def pool_whole_body(
        self, tokens: Float[Tensor, "views tokens dim"]
    ) -> Float[Tensor, "views dim"]:
        """The mean over all tokens inside the body."""
        return pool_tokens(tokens, (self.batch.body_share >= 0.5).to(tokens.dtype))


@dataclass(frozen=True)
class Targets:
    """What a teacher makes of the rows of a term."""

    probabilities: Float[Tensor, "rows prototypes"]
    output_sum: Float[Tensor, " prototypes"]  # weighted, of its outputs before centring


@dataclass(frozen=True)
class EncoderOutputs:
    """What the encoder gives of the crops of a batch, empty where a pass was not asked for."""

    tokens: Tokens  # of the sparse pass
    local_tokens: LocalTokens  # view after view
    maps: Maps  # of the dense pass, one of each resolution (see `Encoder.pyramid`)
    sparse_unet: Maps  # of the decoder behind the sparse pass, that of full resolution first
    dense_unet: Maps  # of the decoder behind the dense pass, and the tokens' map last
    targets: dict[str, Targets]  # of the teacher, by the names of the terms
    # Of the sparse pass of the encoder that the run started from.
    initial_tokens: Float[Tensor, "views _ _"]


@dataclass(frozen=True)
class EncodedCrops:
    """A batch of snapshot samples under the present encoder."""

    crops: Crops
    images: Images
    outputs: EncoderOutputs
    # The outputs of some passes for other images or positions.
    encode: Callable[[Crops, Images, Collection[EncoderPass]], EncoderOutputs]
    autocast: Callable[[], torch.autocast]


@dataclass(frozen=True)
class TermMetadata:
    """Metadata of samples that terms may read."""

    subject: Int[Tensor, " samples"]  # equal numbers, equal subjects
    # Of the scan of the first view, and of that of the second: see `Term.metadata_features`.
    features: Float[Tensor, "samples features"]
    second_features: Float[Tensor, "samples features"]
    number: Int[Tensor, " samples"]  # in the run, on the host: a key for what a term draws


def term_metadata(batch: Batch | SampleBatch) -> TermMetadata:
    """The metadata of the samples of a batch."""
    number = torch.from_numpy(batch.meta.number)
    meta = batch.meta
    return TermMetadata(meta.subject, meta.metadata_features, meta.second_features, number)


def concatenate_metadata(parts: Sequence[TermMetadata]) -> TermMetadata:
    """The metadata of the samples of several batches."""
    return TermMetadata(
        *(
            torch.cat([getattr(part, name) for part in parts])
            for name in ("subject", "features", "second_features", "number")
        )
    )
