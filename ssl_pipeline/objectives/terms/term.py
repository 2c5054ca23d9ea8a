"""The interface of an objective's terms: settings, head, loss, cost, metrics and rules of each.

A term is a section of settings, and its head the only part that is trained: `Objective` keeps the
heads by the names of their terms. There are two kinds. A `SummedTerm` is a mean over voxels or
tokens, whose sums over parts of a batch only have to be added; a `VectorTerm` needs one vector of
every view of the batch at once. torch is imported inside functions, because the command line reads
studies without it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ssl_pipeline.config.section import Section
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.models.vit_config import ACTIVATIONS_PER_BLOCK, block_parameters
from ssl_pipeline.monitoring.diagnosis import AlarmRule
from ssl_pipeline.store.catalog import ScanRow

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
        TermMetadata,
        Tokens,
        Vectors,
    )

UNET_PASSES = frozenset({"sparse_unet", "dense_unet"})  # through the U-Net's decoder
FLOPS_PER_PARAMETER = 2  # operations a parameter and token of a forward pass
Temperature = Annotated[float, Field(gt=0, description="divisor of the cosine similarities")]
ProjectionDim = Annotated[int, Field(gt=0, description="width of the projected vectors")]


class Ramp(Section):
    """Ramp of a weight: 0 until `start`, a half cosine up to 1 at `end`."""

    start: float = Field(0.05, ge=0, le=1, description="fraction of the run after which it begins")
    end: float = Field(0.15, ge=0, le=1, description="fraction of the run at which it reaches 1")

    @model_validator(mode="after")
    def _ordered(self) -> "Ramp":
        if self.end < self.start:
            raise ValueError(f"end is {self.end}, before start, {self.start}")
        return self

    def factor(self, progress: float) -> float:
        """The factor after this fraction of the run."""
        if progress < self.start:
            return 0.0
        if progress >= self.end:
            return 1.0
        return 0.5 - 0.5 * math.cos(math.pi * (progress - self.start) / (self.end - self.start))


def projection_parameters(width: int, out_dim: int) -> int:
    """Parameters of `models.heads.projection_head`: two layers and a norm."""
    hidden = 4 * width
    return (width + 1) * hidden + 2 * hidden + (hidden + 1) * out_dim


@dataclass(frozen=True)
class TermCost:
    """Cost of a term's head for one view, beside the encoder's pass."""

    parameter_count: int
    forward_flops: int
    activation_count: int  # numbers that are kept for the backward pass
    teacher_parameter_count: int = 0  # of the teacher's part, which has no backward pass
    teacher_flops: int = 0

    def __add__(self, other: "TermCost") -> "TermCost":
        return TermCost(*(sum(pair) for pair in zip(astuple(self), astuple(other), strict=True)))


def decoder_cost(width_in: int, width_out: int, width: int, depth: int, tokens: int) -> TermCost:
    """Cost of `models.decoder.ReconstructionDecoder` on so many tokens, visible and decoded."""
    parameters = (width_in + 2) * width + block_parameters(width, depth, 4 * width) + 2 * width
    parameters += (width + 1) * width_out
    return TermCost(
        parameters,
        FLOPS_PER_PARAMETER * tokens * parameters,
        tokens * ACTIVATIONS_PER_BLOCK * width * depth,
    )


class Term(Section, ABC):
    """One loss of an objective, with its weight and all that other parts ask of it."""

    METRICS: ClassVar[dict[str, str]]  # descriptions by name; that of the loss is the term's name
    RULES: ClassVar[tuple[AlarmRule, ...]] = ()  # of the diagnosis of a run with this term
    CONTRASTS_VIEWS: ClassVar[bool] = False  # whether it distinguishes the views of samples
    NEEDS_PARTNERS: ClassVar[bool] = False  # whether it is of views that are two scans of a visit

    name: str
    weight: float = Field(1.0, ge=0, description="weight in the sum of losses")
    ramp: Ramp | None = Field(
        None, description="ramp of the weight over the run; the whole weight from the start if null"
    )

    @property
    def passes(self) -> "frozenset[EncoderPass]":
        """The passes of the encoder that its loss uses."""
        return frozenset({"sparse"})

    def ramp_factor(self, progress: float) -> float:
        """The factor of the weight after this fraction of the run."""
        return self.ramp.factor(progress) if self.ramp else 1.0

    @abstractmethod
    def metadata_used(self) -> tuple[str, ...]:
        """Names of the metadata of scans, beside the subject, that the loss depends on."""

    @abstractmethod
    def min_batch_size(self) -> int:
        """The smallest number of samples a step with which the loss means something."""

    @abstractmethod
    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """Cost for a view of which the encoder sees `visible` tokens and not `hidden` ones."""

    @abstractmethod
    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """The trained part of the term, its weights drawn from torch's global generator."""

    @property
    def metadata_width(self) -> int:
        """Columns of `metadata_features`."""
        return len(self.metadata_used())

    def metadata_features(
        self, entries: Sequence[ScanRow]
    ) -> Float[NDArray[np.float32], "n columns"]:
        """The metadata of scans as numbers, in the order of `metadata_used`."""
        return np.zeros((len(entries), 0), np.float32)

    def check_metadata(self, entries: Sequence[ScanRow]) -> None:
        """Raise UserError where the term learns nothing of the metadata of training scans."""
        self.metadata_features(entries)

    def reconstruct(
        self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs"
    ) -> "Images | None":
        """Crops with their hidden patches as the term predicts them; None if it predicts none."""
        return None


class SummedTerm(Term):
    """A mean over voxels or tokens: a sum and a count, which add up over parts of a batch."""

    @abstractmethod
    def count(self, crops: "Crops") -> "Scalar":
        """What the sum is a sum over; needs no pass of the encoder."""

    @abstractmethod
    def sum_and_count(
        self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs"
    ) -> "tuple[Tensor, Tensor]":
        """Sum of the losses over a part of a batch, and its count."""

    def snapshot_metrics(self, head: "nn.Module", encoded: "EncodedCrops") -> dict[str, float]:
        """Metrics of the encoder on a batch of snapshot samples."""
        return {}


class VectorTerm(Term):
    """A loss of one vector of every view, computed from those of the whole batch."""

    # Whether samples of one subject are no negatives of each other; monitoring then checks it.
    EXCLUDES_SUBJECT: ClassVar[bool] = False

    @abstractmethod
    def vectors(self, head: "nn.Module", crops: "Crops", tokens: "Tokens") -> "Vectors":
        """One vector of each view."""

    @abstractmethod
    def loss(self, first: "Vectors", second: "Vectors", metadata: "TermMetadata") -> "Scalar":
        """The loss of all samples of a batch, from the vectors of their two views."""

    def snapshot_metrics(
        self, first: "Vectors", second: "Vectors", metadata: "TermMetadata"
    ) -> dict[str, float]:
        """Metrics of the vectors of all snapshot samples."""
        return {}

    def prediction_scores(
        self, first: "Vectors", second: "Vectors", metadata: "TermMetadata"
    ) -> dict[str, float]:
        """How well what is known of held-out scans is predicted, by its name."""
        return {}


def diagnosis_rules(terms: Sequence[Term]) -> list[AlarmRule]:
    """The rules that terms add to the diagnosis of a run."""
    return [rule for term in terms for rule in term.RULES]
