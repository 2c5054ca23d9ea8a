"""Calibration of a task's model, on subjects who were neither trained on nor scored."""

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
    scale_probabilities,
)
from ssl_pipeline.evaluation.prediction.predictor import ScanPredictor
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.subject_splits import calibration_entries
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.store.catalog import Entry


def calibrate(runner: TaskRunner, network: nn.Module, section: Finetune) -> Calibration | None:
    """The calibration of a network; None where subjects are too few, or no scan has a class."""
    context = runner.context
    held_out = calibration_entries(runner.task, context.catalog.entries, context.evaluate.split)
    subjects = {entry.subject for entry in held_out}
    if len(subjects) < MIN_SUBJECTS:
        return None
    predictor = runner.task.predictor([network], section, runner.crop_size)
    fitted, scored = (_predict(runner, predictor, e) for e in (held_out, runner.test_entries))
    temperature = fit_temperature(*fitted)
    before, after, scored_before, scored_after = (
        expected_error(scale_probabilities(probability, each), targets)
        for probability, targets in (fitted, scored)
        for each in (1.0, temperature)
    )
    return Calibration(
        temperature=temperature,
        n_subjects=len(subjects),
        error_before=before,
        error_after=after,
        scored_error_before=scored_before,
        scored_error_after=scored_after,
    )


def _predict(
    runner: TaskRunner, predictor: ScanPredictor, entries: list[Entry]
) -> tuple[Probabilities, NDArray[np.int64]]:
    """Probabilities of the classes of scans, and their true classes, by index."""
    volumes = (PreparedVolume(runner.context.reader.read_volume(e.id), e.meta) for e in entries)
    rows = [list(predictor.predict(volume).values.values()) for volume in volumes]
    targets = [runner.task.scan_class(entry) for entry in entries]
    return np.array(rows, np.float64), np.array(targets, np.int64)
