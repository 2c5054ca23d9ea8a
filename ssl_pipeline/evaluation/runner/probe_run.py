"""What a task gives to probing: its cells, and what computes them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_pipeline.config.section import Section
from ssl_pipeline.evaluation.cells import Cell
from ssl_pipeline.evaluation.runner.context import ComputeCell, TaskRunner


@dataclass(frozen=True)
class ProbeRun:
    """The cells of a task's probing."""

    runner: TaskRunner
    cells: Sequence[tuple[Cell, Section]]  # each with the section that determines it
    compute: ComputeCell
    notes: tuple[str, ...]  # for the reader of the results
