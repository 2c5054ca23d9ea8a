"""Prediction of targets: what the study's table says of a scan, from its pooled tokens.

Age, sex, findings of a report or its embedding, where they are known, supervise the encoder beside
what it learns of voxels alone. A target of a task is refused (see
`stages.core.objective_validation`). Missing values are masked, so that no scan needs them all.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field

from ssl_pipeline.errors import UserError
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.objectives.target_kinds import TargetConfig
from ssl_pipeline.objectives.terms.term import FLOPS_PER_PARAMETER, TermCost, VectorTerm
from ssl_pipeline.store.catalog import ScanRow, scan_attribute

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.target_kinds import PredictedTarget
    from ssl_pipeline.objectives.term_inputs import Crops, Scalar, TermMetadata, Tokens, Vectors


class TargetPrediction(VectorTerm):
    """Weighted mean over targets of their mean losses over the views whose scan has a value."""

    METRICS: ClassVar[dict[str, str]] = {
        "target_prediction": "weighted mean of the losses of all targets",
        "target_loss": "mean loss of a target over the snapshot samples that have it",
        "target_score": "on them, R² of a number, balanced accuracy of classes and findings, mean "
        "cosine of a vector",
    }

    name: Literal["target_prediction"] = "target_prediction"
    targets: Annotated[dict[str, TargetConfig], Field(min_length=1)] = Field(
        description="what is predicted, by the name of a target of the roots or the table, or of "
        "site, modality or sequence"
    )

    def metadata_used(self) -> tuple[str, ...]:
        """The targets."""
        return tuple(self.targets)

    @property
    def metadata_width(self) -> int:
        """Columns of all targets."""
        return sum(target.columns for target in self.targets.values())

    def min_batch_size(self) -> int:
        """One: samples are independent."""
        return 1

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """Cost of the head, on one vector of a view."""
        parameters = (model.width + 1) * self._outputs
        return TermCost(parameters, FLOPS_PER_PARAMETER * parameters, 0)

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """A linear layer, so that features themselves must say what is predicted."""
        from torch import nn

        return nn.Linear(encoder.dim, self._outputs)

    def metadata_features(
        self, entries: Sequence[ScanRow]
    ) -> Float[NDArray[np.float32], "n columns"]:
        """The values of scans as numbers, nan where they are missing.

        Raises UserError for a value that is none of its target's kind, which it does not show.
        """
        found = np.full((len(entries), self.metadata_width), np.nan, np.float32)
        for row, entry in enumerate(entries):
            start = 0
            for name, target in self.targets.items():
                text = scan_attribute(entry, name)
                if text:
                    try:
                        found[row, start : start + target.columns] = target.encode(text)
                    except ValueError as error:
                        raise UserError(
                            f"The term {self.name} predicts {name}, whose value of scan {entry.id} "
                            f"{error}: correct it, or leave it empty."
                        ) from None
                start += target.columns
        return found

    def check_metadata(self, entries: Sequence[ScanRow]) -> None:
        """Raise UserError where no training scan has a value, or numbers are badly scaled."""
        features = self.metadata_features(entries)
        start = 0
        for name, target in self.targets.items():
            values = features[:, start : start + target.columns]
            values = values[~np.isnan(values).any(axis=1)]
            missing = f"which no scan has{target.values_help}"
            if fault := target.fault(values) if len(values) else missing:
                raise UserError(f"The term {self.name} predicts {name}, {fault}.")
            start += target.columns

    def vectors(self, head: "nn.Module", crops: "Crops", tokens: "Tokens") -> "Vectors":
        """Predictions of all targets from the mean over the visible tokens inside the body."""
        return cast("Vectors", head(crops.pool_body(tokens)))

    def loss(self, first: "Vectors", second: "Vectors", metadata: "TermMetadata") -> "Scalar":
        """Weighted mean of the targets' losses; 0, with a graph, where no value is known."""
        parts = [
            target.weight * target.mean_loss(outputs, values)
            for _, target, outputs, values in self._by_target(first, second, metadata)
        ]
        return cast("Scalar", sum(parts)) / sum(each.weight for each in self.targets.values())

    def snapshot_metrics(
        self, first: "Vectors", second: "Vectors", metadata: "TermMetadata"
    ) -> dict[str, float]:
        """Loss and score of each target that a sample has."""
        losses = {
            f"target_loss/{name}": target.mean_loss(outputs, values).item()
            for name, target, outputs, values in self._by_target(first, second, metadata)
            if values.numel()
        }
        scores = self.prediction_scores(first, second, metadata)
        return losses | {f"target_score/{name}": score for name, score in scores.items()}

    def prediction_scores(
        self, first: "Vectors", second: "Vectors", metadata: "TermMetadata"
    ) -> dict[str, float]:
        """R², balanced accuracy or cosine by target; nan where the values do not differ."""
        return {
            name: target.score(outputs, values)
            for name, target, outputs, values in self._by_target(first, second, metadata)
            if values.numel()
        }

    def _by_target(
        self, first: "Vectors", second: "Vectors", metadata: "TermMetadata"
    ) -> "Iterator[tuple[str, PredictedTarget, Vectors, Vectors]]":
        """Of each target its outputs and values, (views, ...), of views whose scan has a value."""
        import torch

        outputs = torch.cat([first, second]).float()
        values = torch.cat([metadata.features, metadata.second_features])
        sizes = [(each.outputs, each.columns) for each in self.targets.values()]
        widths, columns = ([size[axis] for size in sizes] for axis in (0, 1))
        for (name, target), out, known in zip(
            self.targets.items(), outputs.split(widths, 1), values.split(columns, 1), strict=True
        ):
            has_value = ~known.isnan().any(dim=1)
            yield name, target, out[has_value], known[has_value]

    @property
    def _outputs(self) -> int:
        """Numbers that the head gives."""
        return sum(target.outputs for target in self.targets.values())
