"""What the card, the report and `predict` tell people of a task model's probabilities."""

from ssl_pipeline.evaluation.prediction.calibration import MIN_SUBJECTS
from ssl_pipeline.export.task_model.manifest import ModelManifest
from ssl_pipeline.formatting import format_score

DIGITS = 3  # of errors


def calibration_note(manifest: ModelManifest) -> str:
    """How far the model's probabilities can be believed; empty where it gives none."""
    if not manifest.task.CLASSIFIED:
        return ""
    found = manifest.calibration
    if found is None:
        return (
            "The model's probabilities are as they were learned: to calibrate them, "
            f"{MIN_SUBJECTS} subjects must be neither trained on nor scored (split val)."
        )
    errors = (
        *(found.error_before, found.error_after),
        *(found.scored_error_before, found.scored_error_after),
    )
    before, after, scored_before, scored_after = (format_score(each, DIGITS) for each in errors)
    return (
        f"The model's probabilities are scaled by a temperature of {found.temperature:.3g}, fitted "
        f"on {found.n_subjects} subjects of the split val: expected calibration error by "
        f"{manifest.task.CLASSIFIED} {before} before and {after} after; of the scored subjects "
        f"{scored_before} before and {scored_after} after."
    )
