"""Manifests as Snakemake is to see them: of stages that are complete for what they now read.

Snakemake looks at declared files alone, and has no record of a stage that was run by hand. So
before it plans, the manifest of a stage whose files are missing, whose settings, version or files
from outside of the study are others, or that failed in part, is set aside; it comes back, with its
date, where the stage is complete again without a run, as when a setting is put back.
"""

import os
import time
from pathlib import Path

from stages.core.layout import MANIFEST, WITHDRAWN_MANIFEST
from stages.core.records import is_stale, missing_files, read_completion
from stages.core.stage_runs import StageRun, stage_runs
from stages.core.study import Study


def refresh_manifests(study: Study) -> None:
    """Set aside the manifests of stages that must run again, and restore those of complete ones."""
    external = study.external_hashes  # of its trials too
    for stage_run in stage_runs(study).values():
        manifest, withdrawn = stage_run.out / MANIFEST, stage_run.out / WITHDRAWN_MANIFEST
        if not _is_complete(stage_run, external):
            if manifest.exists():
                manifest.replace(withdrawn)
            continue
        if withdrawn.exists() and not manifest.exists():
            withdrawn.rename(manifest)
        _limit_date(manifest)


def _is_complete(stage_run: StageRun, external_hashes: dict[str, str]) -> bool:
    """Whether a stage has ended, with all its files there, for what it now reads."""
    done = read_completion(stage_run.out)
    if done is None or done.failed or missing_files(stage_run.out, done):
        return False
    read = done.provenance.inputs
    if any(read.get(name, now) != now for name, now in external_hashes.items()):
        return False
    return not is_stale(stage_run.study, stage_run.stage, stage_run.wildcards)


def _limit_date(path: Path) -> None:
    """Give a file of a machine whose clock is ahead the present date.

    Snakemake fails a rule whose input is dated after its output.
    """
    if path.exists() and path.stat().st_mtime > time.time():
        os.utime(path)
