"""What a task gives to fine-tuning: the computation of its cells."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import Cell, read_cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.crops import StoredVolumes
from ssl_pipeline.evaluation.prediction.calibration import Probabilities
from ssl_pipeline.store.catalog import Entry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class SavedNetwork:
    """The network of a fine-tuned cell, as it was saved."""

    cell: Cell
    method: AdaptationMethod
    finetune: Finetune
    folder: Path  # of the task's fine-tuning


def settled_section(network: SavedNetwork) -> Finetune:
    """The section that a network predicts with: what its cell chose is filled in."""
    if network.finetune.largest_component != "auto":
        return network.finetune
    record = read_cell(network.cell.path(network.folder))
    return with_components(network.finetune, record.largest_components)


def with_components(section: Finetune, chosen: tuple[int, ...]) -> Finetune:
    """The section with the classes whose largest component alone is kept, where it is open."""
    if section.largest_component != "auto":
        return section
    return section.model_copy(update={"largest_component": chosen})


class FinetuneCells(ABC):
    """Computes the fine-tuning cells of a task, and predicts with the networks that it saved."""

    @abstractmethod
    def compute(self, cell: Cell, section: Finetune) -> dict[str, Any]:
        """Content of a cell's file: its predictions, their cost, and the files beside it."""

    @abstractmethod
    def predict(self, network: SavedNetwork, volumes: StoredVolumes) -> list[dict[str, Any]]:
        """Predictions of a saved network for the scored scans, clean or corrupted."""

    @abstractmethod
    def class_probabilities(
        self, network: "nn.Module", section: Finetune, entry: Entry
    ) -> tuple[Probabilities, NDArray[np.int64]]:
        """Probabilities (n, classes) of a scan or of some of its voxels, and the true classes (n,).

        Asked only of a task that is `CLASSIFIED`; without rows where the truth does not tell.
        """

    @abstractmethod
    def notes(self, finetune: Finetune, cells: Collection[Cell]) -> tuple[str, ...]:
        """Notes on these cells for the reader of the results."""

    def baseline_hash(self, name: str) -> str:
        """Hash of what a baseline depends on beside the truth; empty if of nothing."""
        return ""
