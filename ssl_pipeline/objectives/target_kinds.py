"""Kinds of targets that `terms.target_prediction` predicts: number, class, finding and vector.

Each kind says how a word of a table becomes numbers, what its head gives, and its loss and score.
Classes, means and standard deviations are settings, so that a held-out scan is coded as those of
training were. torch is imported inside functions, for these are settings.
"""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from ssl_pipeline.config.section import Section
from ssl_pipeline.io.text import normalize_word, parse_number, parse_vector

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_pipeline.objectives.term_inputs import Scalar, Vectors

PRESENT = ("1", "true", "yes", "present", "positive")
ABSENT = ("0", "false", "no", "absent", "negative")
MAX_OFFSET = 3.0  # of the mean of training scans, in the standard deviations of the settings
MAX_SCALE = 3.0  # of their standard deviation, and one over it of the smallest


class PredictedTarget(Section, ABC):
    """A target with its kind."""

    weight: float = Field(1.0, gt=0, description="share of its loss against other targets")

    @property
    def columns(self) -> int:
        """Numbers that a value becomes."""
        return 1

    @property
    def outputs(self) -> int:
        """Numbers that the head gives."""
        return 1

    @property
    def values_help(self) -> str:
        """What values are known by, for a message; may be empty."""
        return ""

    @abstractmethod
    def encode(self, text: str) -> list[float]:
        """A value as numbers, nan if it counts as missing. Raises ValueError, saying what it is."""

    def fault(self, values: NDArray[np.float32]) -> str:
        """What is wrong with the known values (n, columns) of training scans; may be empty."""
        return ""

    @abstractmethod
    def losses(self, outputs: "Vectors", values: "Vectors") -> "Tensor":
        """The loss of each view, (views,), from the head's numbers and its value."""

    @abstractmethod
    def score(self, outputs: "Vectors", values: "Vectors") -> float:
        """How well one view or more is predicted: 1 perfectly."""

    def mean_loss(self, outputs: "Vectors", values: "Vectors") -> "Scalar":
        """The mean over views; 0, with a graph, of none."""
        return self.losses(outputs, values).sum() / max(1, len(outputs))


class NumberTarget(PredictedTarget):
    """A number, whose z-score has the Huber loss (Huber 1964, doi:10.1214/aoms/1177703732)."""

    kind: Literal["number"] = "number"
    mean: float = Field(allow_inf_nan=False, description="its mean, about that of training scans")
    std: float = Field(gt=0, allow_inf_nan=False, description="its standard deviation, likewise")

    def encode(self, text: str) -> list[float]:
        """The z-score."""
        number = parse_number(text)
        if number is None:
            raise ValueError("is no number")
        return [(number - self.mean) / self.std]

    def fault(self, values: NDArray[np.float32]) -> str:
        """That mean and standard deviation are far from those of training scans."""
        offset, scale = float(values.mean()), float(values.std())
        is_scaled = scale == 0 or 1 / MAX_SCALE <= scale <= MAX_SCALE
        if abs(offset) <= MAX_OFFSET and is_scaled:
            return ""
        mean, std = self.mean + offset * self.std, scale * self.std
        return (
            f"with mean {self.mean:g} and std {self.std:g}, and the training scans have mean "
            f"{mean:.4g} and std {std:.4g}: write these"
        )

    def losses(self, outputs: "Vectors", values: "Vectors") -> "Tensor":
        """z^2 / 2 up to a difference of 1, |z| - 1/2 above."""
        from torch.nn.functional import huber_loss

        return huber_loss(outputs, values, reduction="none").squeeze(1)

    def score(self, outputs: "Vectors", values: "Vectors") -> float:
        """R², 1 - the squared errors over those of the mean; nan where values are equal."""
        spread = float((values - values.mean()).square().sum())
        return 1 - float((outputs - values).square().sum()) / spread if spread else math.nan


class ClassTarget(PredictedTarget):
    """A word of several, which has the cross-entropy; other words count as missing."""

    kind: Literal["class"] = "class"
    classes: tuple[
        Annotated[
            str,
            BeforeValidator(
                lambda value: normalize_word(str(value)), json_schema_input_type=str | int | float
            ),
        ],
        ...,
    ] = Field(min_length=2, max_length=64, description="values that are predicted, each once")

    @model_validator(mode="after")
    def _differ(self) -> "ClassTarget":
        if "" in self.classes:
            raise ValueError(
                "classes has a word for a missing value, which is masked: leave it out"
            )
        if len({name.casefold() for name in self.classes}) < len(self.classes):
            raise ValueError(f"classes is {', '.join(self.classes)}: give each once")
        return self

    @property
    def outputs(self) -> int:
        """One logit for each class."""
        return len(self.classes)

    @property
    def values_help(self) -> str:
        """The classes."""
        return f" as one of its classes, {', '.join(self.classes)}: write them as the scans do"

    def encode(self, text: str) -> list[float]:
        """The index of the class."""
        return [float(self.classes.index(text)) if text in self.classes else math.nan]

    def losses(self, outputs: "Vectors", values: "Vectors") -> "Tensor":
        """- log of the softmax at the class."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, values.squeeze(1).long(), reduction="none")

    def score(self, outputs: "Vectors", values: "Vectors") -> float:
        """Balanced accuracy; nan where all are of one class."""
        return _balanced_accuracy(outputs.argmax(dim=1), values.squeeze(1).long())


class FindingTarget(PredictedTarget):
    """Whether something is present, which has the binary cross-entropy."""

    kind: Literal["finding"] = "finding"

    def encode(self, text: str) -> list[float]:
        """1 or 0."""
        word = text.casefold()
        if word not in PRESENT + ABSENT:
            raise ValueError(f"is none of {', '.join(PRESENT + ABSENT)}")
        return [float(word in PRESENT)]

    def losses(self, outputs: "Vectors", values: "Vectors") -> "Tensor":
        """- log of the sigmoid, of one less it where the finding is absent."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(outputs, values, reduction="none").squeeze(1)

    def score(self, outputs: "Vectors", values: "Vectors") -> float:
        """Balanced accuracy; nan where it is present, or absent, in all."""
        return _balanced_accuracy((outputs > 0).squeeze(1).long(), values.squeeze(1).long())


class VectorTarget(PredictedTarget):
    """A vector, such as the embedding of a report, whose direction is predicted."""

    kind: Literal["vector"] = "vector"
    size: int = Field(ge=3, description="numbers of a vector")

    @property
    def columns(self) -> int:
        """All numbers."""
        return self.size

    @property
    def outputs(self) -> int:
        """As many."""
        return self.size

    def encode(self, text: str) -> list[float]:
        """The numbers."""
        found = parse_vector(text)
        if found is None:
            raise ValueError("is no list of numbers")
        if len(found) != self.size:
            raise ValueError(f"has {len(found)} numbers, and size is {self.size}")
        if not any(found):
            raise ValueError("has zeros alone, and so no direction")
        return found

    def losses(self, outputs: "Vectors", values: "Vectors") -> "Tensor":
        """1 - the cosine of prediction and vector."""
        from torch.nn.functional import cosine_similarity

        return 1 - cosine_similarity(outputs, values, dim=1)

    def score(self, outputs: "Vectors", values: "Vectors") -> float:
        """The mean cosine."""
        return 1 - float(self.losses(outputs, values).mean())


TargetConfig = Annotated[
    NumberTarget | ClassTarget | FindingTarget | VectorTarget, Field(discriminator="kind")
]


def _balanced_accuracy(predicted: "Tensor", truth: "Tensor") -> float:
    """The mean over the classes that occur of the share of them that is predicted."""
    classes = truth.unique()
    if len(classes) < 2:
        return math.nan
    shares = [float((predicted[truth == each] == each).float().mean()) for each in classes]
    return sum(shares) / len(shares)
