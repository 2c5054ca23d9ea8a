"""The model card: the README of a task model, generated from its manifest; it names no person."""

from typing import Any

from ssl_pipeline.export.model_card import render_card
from ssl_pipeline.export.task_model.calibration_note import calibration_note
from ssl_pipeline.export.task_model.manifest import ModelManifest
from ssl_pipeline.formatting import format_with_interval

SUMMARY_KEYS = (
    *("study", "initialization", "method", "subjects", "scans", "modalities", "steps"),
    "seed",
)


def model_card(manifest: ModelManifest) -> str:
    """The text of the README, in Markdown."""
    summary = manifest.training_summary
    return render_card(
        "ssl_pipeline.export.task_model",
        "card.md",
        manifest=manifest,
        trained={key: _to_text(summary[key]) for key in SUMMARY_KEYS if key in summary},
        scores=[
            (each.metric, format_with_interval(each.mean, each.low, each.high))
            for each in manifest.scores
        ],
        confidence=f"{manifest.confidence:.0%}",
        calibration=calibration_note(manifest),
        modality=summary["modalities"][0],
    )


def _to_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
