"""Correspondence: the place of a click in other patients, by the features of a place alone.

Nothing is trained. The clicks are the centres of organs in label maps of training subjects, and the
same centres are searched for in the scored ones.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Probe
from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL, LabelMap, LabelMaps
from ssl_pipeline.evaluation.metrics.correspondence import HERE, score_landmarks
from ssl_pipeline.evaluation.metrics.metric import FOUND_SHARE
from ssl_pipeline.evaluation.metrics.scores import CellScores, Predictions
from ssl_pipeline.evaluation.tasks.cost import CostInputs, TaskCost
from ssl_pipeline.evaluation.tasks.task import Task, TruthName
from ssl_pipeline.store.catalog import Entry, ScanRow
from ssl_pipeline.types import Triple

if TYPE_CHECKING:
    from jaxtyping import Float
    from numpy.typing import NDArray
    from torch import nn

    from ssl_pipeline.evaluation.runner.context import TaskRunner
    from ssl_pipeline.evaluation.runner.finetune_cells import FinetuneCells
    from ssl_pipeline.evaluation.runner.probe_run import ProbeRun
    from ssl_pipeline.models.encoder import Encoder

ROW_BYTES = 220  # a landmark of a scan in a cell's file
OVERLAPPING_WINDOWS = 3  # that show a voxel of a scan, about


class Correspondence(Task):
    """Centres of organs, found in other subjects by one or more clicks."""

    METRIC: ClassVar[str] = FOUND_SHARE
    SUPPORTED_STAGES: ClassVar[tuple[str, ...]] = ("probe",)
    HAS_LANDMARKS: ClassVar[bool] = True
    TRUTH_INDEPENDENT_KEYS: ClassVar[frozenset[str]] = Task.TRUTH_INDEPENDENT_KEYS | {
        "clicks",
        "tolerance_mm",
    }

    kind: Literal["correspondence"] = "correspondence"
    label: str = Field(
        description="name of the labels that the roots declare; the centre of mass of each class is"
        " a landmark, so name compact organs: the middle of a long one is no place"
    )
    clicks: tuple[PositiveInt, ...] = Field(
        (1, 5),
        min_length=1,
        description="numbers of training subjects in whom a landmark is known",
    )
    tolerance_mm: float = Field(
        15.0, gt=0, description="distance in mm within which a landmark counts as found"
    )

    @model_validator(mode="after")
    def _background_is_no_landmark(self) -> "Correspondence":
        if 0 in self.classes or IGNORE_LABEL in self.classes:
            raise ValueError(
                f"classes names 0 or {IGNORE_LABEL}: those are background and 'not annotated'"
            )
        return self

    def truth_names(self) -> tuple[TruthName, ...]:
        """The label."""
        return (TruthName("label", "label", self.label),)

    def usable_entries(self, scans: Sequence[ScanRow]) -> list[ScanRow]:
        """Scans that have a label file."""
        return self.entries_with(self.entries(scans), self.truth_names()[0])

    def truth_key(self, entry: Entry, labels: LabelMaps) -> str:
        """What the landmarks of a scan depend on."""
        return labels.sha256(entry, self.label)

    def landmarks(self, label_map: LabelMap) -> "Float[NDArray[np.float64], 'landmarks 3']":
        """Voxel (z, y, x) of the centre of each class of a label map; nan where it shows none."""
        found = np.full((len(self.classes), 3), np.nan)
        for row, value in enumerate(self.class_values):
            where = np.nonzero(label_map == value)
            if len(where[0]):
                found[row] = np.mean(where, axis=1)
        return found

    def score(self, subjects: Sequence[str], predictions: Predictions) -> CellScores:
        """Metrics of found places."""
        return score_landmarks(subjects, len(self.classes), predictions, self.tolerance_mm, HERE)

    def cost(self, inputs: CostInputs, finetune: Finetune, crop: Triple) -> TaskCost:
        """Cost of its cells, beside that of the encoder."""
        crops = OVERLAPPING_WINDOWS * sum(inputs.voxels) / math.prod(crop)
        return TaskCost(
            probed_crops=math.ceil(crops),
            forward_passes=0.0,
            prediction_bytes=float(ROW_BYTES * len(self.classes) * inputs.test_scans),
            label_files=len(inputs.voxels),
            label_bytes=sum(inputs.voxels),
        )

    def probe_budgets(self, evaluate: Evaluate) -> Sequence[int | str]:
        """The numbers of clicks."""
        return self.clicks

    def probe_run(self, runner: "TaskRunner", probe: Probe) -> "ProbeRun":
        """Its cells: a search by the features of each encoder, and by those of the baselines."""
        from ssl_pipeline.evaluation.runner.correspondence_cells import correspondence_run

        return correspondence_run(runner, self)

    def finetune_cells(self, runner: "TaskRunner") -> "FinetuneCells":
        """None."""
        raise self._untrained_error()

    def build_network(
        self, encoder: "Encoder", method: AdaptationMethod, finetune: Finetune
    ) -> "nn.Module":
        """None."""
        raise self._untrained_error()

    def _untrained_error(self) -> UserError:
        return UserError(
            f"Task {self.title!r} is of kind {self.kind}: places are found by frozen features, and "
            "nothing is trained; list it for probe alone."
        )
