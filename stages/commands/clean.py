"""Remove files that a study no longer needs, or all that it wrote: `ssl-pipeline clean`.

Each stage declares which files it writes (`OUTPUTS`) and, where it can, which of them are stale;
only files of these patterns are ever touched, so a user's own notes in the output folder stay, and
so do raw scans. With `--all` paths of origin go too, the salt of the pseudonyms never, nor labels
that people drew. What goes, and its size, is listed first. Meanwhile the locks of all stages are
held, and a study with a job in the queue is left alone.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.prompt import Confirm
from rich.table import Table

from cluster import launch
from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_bytes, format_count
from ssl_pipeline.io import atomic
from ssl_pipeline.progress import console, info
from ssl_pipeline.review.next_labels.work_folder import scan_files
from stages import evaluation_inputs, preprocess
from stages.commands.next_labels import NEXT_FILES
from stages.core import layout, pretraining_runs
from stages.core.layout import (
    CALIBRATE_FOLDER,
    DRIFT_FOLDER,
    JOBS_FOLDER,
    LOGS_FOLDER,
    NEXT_FOLDER,
    RECORD_FILES,
    TRIALS_FOLDER,
)
from stages.core.locks import stage_lock
from stages.core.records import read_completion, stage_folders
from stages.core.stage import load_stage, load_stages
from stages.core.stage_runs import stage_runs
from stages.core.study import Study
from stages.core.trials import trials

# Of what is no stage.
FOLDERS_BESIDE = (
    *(TRIALS_FOLDER, LOGS_FOLDER, JOBS_FOLDER),
    *(NEXT_FOLDER, DRIFT_FOLDER, CALIBRATE_FOLDER),
)
TEMPORARY_NAME = re.compile(rf"{re.escape(atomic.TEMPORARY_PREFIX)}.+-\w+")


@dataclass(frozen=True)
class CleanGroup:
    """Files that are removed for one reason."""

    reason: str
    files: list[Path]

    @property
    def size_bytes(self) -> int:
        """Their size on disk, in bytes."""
        return sum(path.lstat().st_size for path in self.files)


def clean_study(study: Study, *, remove_all: bool, assume_yes: bool) -> None:
    """List what would be removed, and remove it if confirmed, in advance or on the terminal.

    Raises UserError while a stage runs, and where there is no terminal to confirm on.
    """
    if not study.folder.is_dir() and not study.pseudonyms.study_folder.is_dir():
        raise UserError(f"There is no {study.folder}: the study has no output yet.")
    with exclusive_access(study):
        groups = [group for group in _groups(study, remove_all) if group.files]
        if not groups:
            info(f"clean: nothing to remove in {study.folder}")
            return
        console.print(_table(study, groups))
        if not (assume_yes or _ask_confirmation()):
            info("clean: nothing was removed")
            return
        files = [path for group in groups for path in group.files]
        total = sum(group.size_bytes for group in groups)
        _remove(files, (study.folder, study.pseudonyms.study_folder))
        info(f"clean: {format_count(len(files), 'file')} removed, {format_bytes(total)}")
    if remove_all and study.folder.is_dir():
        info(f"clean: {study.folder} stays, for it holds files that no stage wrote")


@contextmanager
def exclusive_access(study: Study) -> Iterator[None]:
    """Hold the locks of all stages. Raises UserError where one runs, here or as a job."""
    for name, out in _outputs_by_run(study).items():
        if not layout.job_folder(study, name).is_dir():
            continue
        for job in launch.active_jobs(name, out):
            raise UserError(
                f"Job {job} of {name} is in SLURM's queue: wait for it, or `scancel {job}`."
            )
    with ExitStack() as locks:
        for name, out in stage_folders(study):
            if not os.access(out, os.W_OK):
                continue  # an archive, in which nobody on this account can run a stage
            locks.enter_context(stage_lock(out, name))
        yield


def _groups(study: Study, remove_all: bool) -> Iterator[CleanGroup]:
    if remove_all:
        made = _pipeline_files(study)
        tops = {name: study.folder / name for name in (*load_stages(), *FOLDERS_BESIDE)}
        tops["paths of origin"] = study.pseudonyms.study_folder
        tops["the owner's record"] = layout.study_record(study)
        for name, top in tops.items():
            yield CleanGroup(f"all of {name}", sorted(p for p in made if p.is_relative_to(top)))
        return
    both = (study, *trials(study))
    job_folders = [layout.job_folder(study, name) for name in _outputs_by_run(study)]
    stale: dict[str, Iterable[Path]] = {
        "parts of interrupted writes": _temporary_files(study),
        "stored volumes of scans that are gone": preprocess.orphaned_volumes(study),
        "trials that the study no longer has": _stale_trials(study),
        "pretraining with other settings or cohorts": _collect(pretraining_runs.stale_runs, both),
        "checkpoints before the newest": _collect(pretraining_runs.stale_checkpoints, both),
        "evaluation of other encoders": _collect(evaluation_inputs.stale_cell_files, both),
        "earlier jobs": [
            job for folder in job_folders for job in launch.previous_job_files(folder)
        ],
    }
    made = _pipeline_files(study)
    for reason, paths in stale.items():
        files = _files_below(paths) & made
        made -= files
        yield CleanGroup(reason, sorted(files))


def _collect(find_stale: Callable[[Study], list[Path]], studies: Iterable[Study]) -> list[Path]:
    return [path for study in studies for path in find_stale(study)]


def _stale_trials(study: Study) -> list[Path]:
    """Folders of trials; all of them, where the study compares nothing any more."""
    now = {trial.trial for trial in trials(study)}
    return [path for path in (study.folder / TRIALS_FOLDER).glob("*") if path.name not in now]


def _pipeline_files(study: Study) -> set[Path]:
    """Every file that the pipeline has written for this study."""
    found = {*study.pseudonyms.files, layout.study_record(study)}
    for name in _outputs_by_run(study):
        found |= {layout.log_file(study, name), layout.progress_file(study, name)}
        jobs = layout.job_folder(study, name)
        found |= {path for pattern in launch.JOB_FILES for path in jobs.glob(pattern)}
    calibrated = layout.calibrate_folder(study)
    found |= {*calibrated.glob("*.json"), *(calibrated / name for name in RECORD_FILES)}
    found |= _files_below([calibrated / layout.MEASURED_FOLDER])
    found |= {path for pattern in NEXT_FILES for path in layout.next_folder(study).glob(pattern)}
    found |= {layout.drift_table(study), layout.drift_scans(study), layout.drift_page(study)}
    found |= {
        path
        for folder in (study.pseudonyms.study_folder / NEXT_FOLDER).glob("*")
        for path in scan_files(folder)
    }
    for name, out in stage_folders(study):
        found |= {
            path
            for pattern in (*RECORD_FILES, *load_stage(name).OUTPUTS)
            for path in out.glob(pattern)
        }
        if done := read_completion(out):
            found |= {out / file for file in done.sizes if not file.startswith(os.pardir)}
    found |= _files_below(_temporary_files(study))
    return {path for path in found if path.is_file() or path.is_symlink()}


def _outputs_by_run(study: Study) -> dict[str, Path]:
    """Output folders of all runs by name, also of tasks and trials that the study has no longer."""
    found = {name: run.out for name, run in stage_runs(study).items()}
    found[CALIBRATE_FOLDER] = layout.calibrate_folder(study)
    for _, out in stage_folders(study):
        parts = out.relative_to(study.folder).parts
        trial = f"@{parts[1]}" if parts[0] == TRIALS_FOLDER else ""
        found["-".join(parts[2:] if trial else parts) + trial] = out
    return found


def _temporary_files(study: Study) -> list[Path]:
    """Files that killed processes left under temporary names."""
    folders = (*load_stages(), TRIALS_FOLDER, LOGS_FOLDER, JOBS_FOLDER)
    tops = (study.folder / name for name in folders)
    found = (path for top in tops for path in top.rglob(f"{atomic.TEMPORARY_PREFIX}*"))
    return [path for path in found if TEMPORARY_NAME.fullmatch(path.name)]


def _files_below(paths: Iterable[Path]) -> set[Path]:
    """These files, and all files below these folders."""
    return {file for path in paths for file in (path.rglob("*") if path.is_dir() else (path,))}


def _table(study: Study, groups: list[CleanGroup]) -> Table:
    shown = Table(title=f"{study.name} in {study.folder}", box=None)
    for column in ("to be removed", "files", "size", "such as"):
        shown.add_column(column, no_wrap=column != "such as", overflow="fold")
    for group in groups:
        example = os.path.relpath(group.files[0], study.folder)
        shown.add_row(
            group.reason, f"{len(group.files):,}", format_bytes(group.size_bytes), example
        )
    return shown


def _ask_confirmation() -> bool:
    """Ask on the terminal. Raises UserError where there is none."""
    if not sys.stdin.isatty():
        raise UserError(
            "Nothing was removed, because there is no terminal to confirm on: add --yes."
        )
    return Confirm.ask("Remove this?", default=False, console=console)


def _remove(files: list[Path], tops: tuple[Path, ...]) -> None:
    """Remove files, and the folders that become empty, `tops` among them."""
    for path in files:
        path.unlink(missing_ok=True)
    folders = {
        parent
        for path in files
        for parent in path.parents
        if any(parent.is_relative_to(top) for top in tops)
    }
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):  # it holds something else
            folder.rmdir()
