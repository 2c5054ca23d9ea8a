"""Calibration of a task's model, on subjects who were neither trained on nor scored."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.prediction.calibration import (
    MIN_SUBJECTS,
    Calibration,
    Probabilities,
    expected_error,
    fit_temperature,
    reliability_bins,
    scale_probabilities,
)
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.finetune_cells import FinetuneCells
from ssl_pipeline.evaluation.runner.subject_splits import calibration_entries
from ssl_pipeline.store.catalog import Entry


def calibrate(runner: TaskRunner, network: nn.Module, section: Finetune) -> Calibration | None:
    """The calibration of a network; None where subjects are too few, or a number is predicted."""
    context = runner.context
    held_out = calibration_entries(runner.task, context.catalog.entries, context.evaluate.split)
    if len({entry.subject for entry in held_out}) < MIN_SUBJECTS:
        return None
    cells = runner.task.finetune_cells(runner)
    fitted = _predict(cells, network, section, held_out)
    if fitted.subjects < MIN_SUBJECTS:
        return None
    scored = _predict(cells, network, section, runner.test_entries)
    if not scored.subjects:
        return None
    temperature = fit_temperature(fitted.probability, fitted.targets)
    before, after, scored_before, scored_after = (
        expected_error(scale_probabilities(rows.probability, each), rows.targets)
        for rows in (fitted, scored)
        for each in (1.0, temperature)
    )
    bins_before, bins_after = (
        reliability_bins(scale_probabilities(scored.probability, each), scored.targets)
        for each in (1.0, temperature)
    )
    return Calibration(
        temperature=temperature,
        n_subjects=fitted.subjects,
        error_before=before,
        error_after=after,
        scored_error_before=scored_before,
        scored_error_after=scored_after,
        scored_bins_before=bins_before,
        scored_bins_after=bins_after,
    )


class _Rows(NamedTuple):
    """Predictions of scans, or of some of their voxels, beside the truth."""

    subjects: int  # of whom there are rows
    probability: Probabilities
    targets: NDArray[np.int64]  # (n,)


def _predict(
    cells: FinetuneCells, network: nn.Module, section: Finetune, entries: Sequence[Entry]
) -> _Rows:
    rows = [cells.class_probabilities(network, section, entry) for entry in entries]
    subjects = {e.subject for e, (_, targets) in zip(entries, rows, strict=True) if len(targets)}
    probability, targets = zip(*rows, strict=True)
    return _Rows(len(subjects), np.concatenate(probability), np.concatenate(targets))
