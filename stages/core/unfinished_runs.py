"""Pretraining runs that were left before their last step, named when another run starts anew.

A changed setting that the weights depend on means another run, from its first step on. Whoever
changed it without that in mind learns here which setting it is, and that nothing is lost.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ssl_pipeline.progress import info
from ssl_pipeline.training.config import RESUMABLE_KEYS
from stages.core import layout
from stages.core.pretraining_runs import PretrainingRun, other_runs
from stages.core.study import Study


def report_unfinished_runs(run: PretrainingRun) -> None:
    """Say which unfinished runs a study has, where `run` has no checkpoint to go on from."""
    from ssl_pipeline.training.checkpoint import load_newest

    if any(layout.checkpoints_folder(run.folder).glob("*.pt")):
        return
    for folder in other_runs(run):
        state = load_newest(layout.checkpoints_folder(folder))
        steps = state.config.get("training", {}).get("steps", 0) if state else 0
        if state and state.step < steps:
            info(
                f"pretrain: a new run begins; the unfinished one of {state.step} of {steps} steps "
                f"stays in {folder}, and goes on where {_remedy(state.config, run.study)}."
            )


def _remedy(earlier: Mapping[str, Any], study: Study) -> str:
    """What to put back in a study to mean the run with these earlier settings again."""
    now = study.redacted_config
    changed = list(_changed_settings(earlier, {key: now.get(key) for key in earlier}))
    if not changed:
        return "its volumes, cohort or initial weights are as they were"
    return f"{' and '.join(changed)} again"


def _changed_settings(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """The settings that differ, such as `training.steps is 100`, with their earlier values."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        if before != now:
            yield f"{name} is {'not set' if before is None else before}"
        return
    for key in sorted(before.keys() | now.keys()):
        is_measured = key == "steps" and before.get("hours")  # what its hours have become
        if not is_measured and not (name == "training" and key in RESUMABLE_KEYS):
            path = f"{name}.{key}" if name else key
            yield from _changed_settings(before.get(key), now.get(key), path)
