"""The interface of terms of self-distillation, in which an average of the encoder is the teacher.

The teacher sees whole crops, and the encoder its visible patches alone, so that the sparse pass
that all other terms share serves these too (after Assran et al. 2022, MSN, arXiv:2204.07141).
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.monitoring.diagnosis import AlarmRule, Threshold
from ssl_pipeline.objectives.terms.term import FLOPS_PER_PARAMETER, SummedTerm, TermCost

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_pipeline.objectives.term_inputs import (
        Crops,
        EncodedCrops,
        EncoderOutputs,
        EncoderPass,
        Rows,
        RowWeight,
        Scalar,
        Tokens,
    )

BOTTLENECK = 256  # width before the prototypes, as of DINO
Share = Annotated[float, Field(ge=0, le=1)]


class DistillationTerm(SummedTerm):
    """A cross-entropy between the teacher's and the encoder's shares of prototypes, over rows."""

    prototypes: int = Field(1024, ge=2, description="outputs of the projection head")
    student_temperature: float = Field(
        0.1, gt=0, description="divisor of the outputs of the encoder's head"
    )
    teacher_temperature: float = Field(
        0.07, gt=0, description="divisor of the teacher's outputs after the warm-up"
    )
    teacher_start_temperature: float = Field(
        0.04, gt=0, description="divisor of the teacher's outputs at the start"
    )
    teacher_warmup: Share = Field(
        0.3, description="fraction of the run in which the divisor rises linearly from the start's"
    )

    @model_validator(mode="after")
    def _check_temperatures(self) -> "DistillationTerm":
        for name in ("teacher_temperature", "teacher_start_temperature"):
            if getattr(self, name) >= self.student_temperature:
                raise ValueError(
                    f"{name} is {getattr(self, name):g}, not below student_temperature, "
                    f"{self.student_temperature:g}: a teacher that is no more certain than the "
                    "encoder teaches it that all crops are equal"
                )
        return self

    @property
    def passes(self) -> "frozenset[EncoderPass]":
        """Visible patches for the encoder, and whole crops for the teacher."""
        return frozenset({"sparse", "teacher"})

    def teacher_temperature_at(self, progress: float) -> float:
        """The divisor of the teacher's outputs after this fraction of the run."""
        share = min(1.0, progress / self.teacher_warmup) if self.teacher_warmup else 1.0
        start = self.teacher_start_temperature
        return start + share * (self.teacher_temperature - start)

    @abstractmethod
    def projection(self, head: "nn.Module") -> "nn.Module":
        """The part of the head that the teacher has an average of: from rows to outputs."""

    @abstractmethod
    def teacher_rows(self, crops: "Crops", tokens: "Tokens") -> "Rows":
        """What the teacher projects, from its tokens of whole crops."""

    @abstractmethod
    def student_rows(self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs") -> "Rows":
        """What the encoder's head projects, in the same order, from what it was shown."""

    @abstractmethod
    def row_weight(self, crops: "Crops") -> "RowWeight":
        """The weight of each row, 0 or 1."""

    def metadata_used(self) -> tuple[str, ...]:
        """None: a crop is its own target."""
        return ()

    def min_batch_size(self) -> int:
        """Two: with one, the centre of the outputs is the output itself."""
        return 2 if self.weight else 1

    def projection_cost(self, model: ModelConfig, rows: int) -> TermCost:
        """Cost of the projection of so many rows of a view, by encoder and teacher."""
        width = model.width
        parameters = 20 * width**2 + 8 * width + (4 * width + 1) * BOTTLENECK
        parameters += BOTTLENECK * self.prototypes
        return TermCost(
            parameters,
            FLOPS_PER_PARAMETER * rows * parameters,
            rows * (17 * width + 3 * BOTTLENECK + 2 * self.prototypes),
            teacher_parameter_count=parameters,
            teacher_flops=FLOPS_PER_PARAMETER * rows * parameters,
        )

    def count(self, crops: "Crops") -> "Scalar":
        """Rows that have weight."""
        return self.row_weight(crops).sum()

    def sum_and_count(
        self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs"
    ) -> "tuple[Tensor, Tensor]":
        """Sum of the cross-entropies of rows, and how many they are."""
        from ssl_pipeline.objectives.losses import distillation_loss

        rows, weight = self.student_rows(head, crops, outputs), self.row_weight(crops)
        projected = self.projection(head)(rows).float()
        targets = outputs.targets[self.name].probabilities
        return distillation_loss(projected, targets, weight, self.student_temperature), weight.sum()

    def snapshot_metrics(self, head: "nn.Module", encoded: "EncodedCrops") -> dict[str, float]:
        """How certain the teacher is, and how many prototypes it uses."""
        from ssl_pipeline.monitoring.collapse import prototype_share, target_entropy

        weight = self.row_weight(encoded.crops) > 0
        targets = encoded.outputs.targets[self.name].probabilities[weight]
        return {
            f"{self.name}_teacher_entropy": target_entropy(targets),
            f"{self.name}_prototype_share": prototype_share(targets),
        }


def distillation_metrics(name: str, rows: str) -> dict[str, str]:
    """Descriptions of the metrics of such a term, about rows of this kind."""
    return {
        name: f"cross-entropy of teacher and encoder on {rows}, in nats",
        f"{name}_teacher_entropy": f"entropy of the teacher's targets for {rows}, as a fraction of "
        "the largest: 1 all prototypes equally, 0 one alone",
        f"{name}_prototype_share": f"effective number of prototypes that {rows} use, as a fraction "
        "of what so many could use: near 0 is collapse",
    }


def distillation_rules(name: str) -> tuple[AlarmRule, ...]:
    """What shows that such a term has collapsed: its targets say nothing, or all say the same."""
    return (
        (
            "collapsed",
            Threshold(
                f"{name}_teacher_entropy",
                maximum=lambda settings: settings.max_teacher_entropy,
                after=lambda settings: settings.collapse_after,
                message=f"The teacher of {name} is certain of nothing: the entropy of its targets "
                "is {value:.0%} of the largest (the alarm is above {limit:.0%}). Lower "
                "teacher_temperature of the term.",
            ),
        ),
        (
            "collapsed",
            Threshold(
                f"{name}_prototype_share",
                minimum=lambda settings: settings.min_prototype_share,
                after=lambda settings: settings.collapse_after,
                message=f"The teacher of {name} takes all for nearly the same: its targets use "
                "{value:.1%} of the prototypes that they could (the alarm is below {limit:.0%}). "
                "Raise teacher_temperature of the term or objective.teacher_momentum, or lower "
                "training.learning_rate.",
            ),
        ),
    )
