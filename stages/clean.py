"""Remove what a study no longer needs, or all that it made, and nothing that anybody else did.

Each stage says which files it makes (`MAKES`) and, where it can, which of them are stale; only
files of these patterns are ever touched, so a user's own notes in the output folder stay, and so do
raw scans. Paths of origin go with all that was made, the salt of the codes never. It is said what
goes and how much before it does. While it goes, the locks of all stages are held, and a study with
a job in the queue is left alone.
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
from ssl_pipeline import atomic
from ssl_pipeline.errors import UserError
from ssl_pipeline.progress import console, say
from ssl_pipeline.report.numerals import count, size
from stages import judgement, preprocess, runs
from stages.contract import DONE, OWN, STAGES, alone, folders, stage
from stages.study import TRIALS, Study
from stages.trials import trials

JOBS, LOGS = "jobs", "logs"
UNFINISHED = re.compile(rf"{re.escape(atomic.PREFIX)}.+-\w+")


@dataclass(frozen=True)
class Group:
    """Files that go for one reason."""

    reason: str
    files: list[Path]

    @property
    def bytes(self) -> int:
        """What they take on disk, in bytes."""
        return sum(path.lstat().st_size for path in self.files)


def clean(study: Study, *, everything: bool, agreed: bool) -> None:
    """Say what would go, and remove it if that is agreed to, in advance or on the terminal.

    Raises UserError while a stage runs, and where nobody can be asked.
    """
    if not study.folder.is_dir() and not study.origins.folder.is_dir():
        raise UserError(f"There is no {study.folder}: the study has made nothing yet.")
    with at_rest(study):
        groups = [group for group in _groups(study, everything) if group.files]
        if not groups:
            say(f"clean: nothing to remove in {study.folder}")
            return
        console.print(_table(study, groups))
        if not (agreed or _asked()):
            say("clean: nothing was removed")
            return
        files = [path for group in groups for path in group.files]
        total = sum(group.bytes for group in groups)
        _remove(files, (study.folder, study.origins.folder))
        say(f"clean: {count(len(files), 'file')} removed, {size(total)}")
    if everything and study.folder.is_dir():
        say(f"clean: {study.folder} stays, for it holds what no stage made")


@contextmanager
def at_rest(study: Study) -> Iterator[None]:
    """Hold the locks of all stages. Raises UserError where one runs, here or as a job."""
    for folder in sorted((study.folder / JOBS).glob("*/")):
        for job in launch.in_queue(folder.name, _out_of(study, folder.name)):
            raise UserError(
                f"Job {job} of {folder.name} is in SLURM's queue: wait for it, or `scancel {job}`."
            )
    with ExitStack() as locks:
        for name, out in folders(study):
            locks.enter_context(alone(out, name))
        yield


def _out_of(study: Study, name: str) -> Path:
    """Where the job of this name writes, also of a task or trial that the study has no more."""
    part, _, trial = name.partition("@")
    stage_name, _, task = part.partition("-")
    top = study.folder.joinpath(*((TRIALS, trial) if trial else ()))
    return top.joinpath(stage_name, *([task] if task else []))


def _groups(study: Study, everything: bool) -> Iterator[Group]:
    if everything:
        made = _made(study)
        tops = {name: study.folder / name for name in (*STAGES, TRIALS, LOGS, JOBS)}
        tops["paths of origin"] = study.origins.folder
        for name, top in tops.items():
            yield Group(f"all of {name}", sorted(p for p in made if p.is_relative_to(top)))
        return
    both = (study, *trials(study))
    job_folders = (study.folder / JOBS).glob("*/")
    stale: dict[str, Iterable[Path]] = {
        "parts of interrupted writes": _unfinished(study),
        "stored volumes of scans that are gone": preprocess.orphans(study),
        "trials that the ablation has no more": _former_trials(study),
        "pretraining with other dials or cohorts": _each(runs.other_runs, both),
        "checkpoints before the newest": _each(runs.old_checkpoints, both),
        "evaluation of other encoders": _each(judgement.stale_cells, both),
        "earlier jobs": [job for folder in job_folders for job in launch.earlier(folder)],
    }
    made = _made(study)
    for reason, paths in stale.items():
        files = _below(paths) & made
        made -= files
        yield Group(reason, sorted(files))


def _each(stale: Callable[[Study], list[Path]], studies: Iterable[Study]) -> list[Path]:
    return [path for study in studies for path in stale(study)]


def _former_trials(study: Study) -> list[Path]:
    """Folders of trials; all of them, where the study has no ablation any more."""
    now = {trial.trial for trial in trials(study)}
    return [path for path in (study.folder / TRIALS).glob("*") if path.name not in now]


def _made(study: Study) -> set[Path]:
    """Every file that the pipeline has made for this study."""
    found = {*study.folder.glob(f"{LOGS}/*.log"), *study.origins.files}
    for folder in (study.folder / JOBS).glob("*/"):
        found |= {path for pattern in launch.MAKES for path in folder.glob(pattern)}
    for name, out in folders(study):
        found |= {path for pattern in (*OWN, *stage(name).MAKES) for path in out.glob(pattern)}
        if (out / DONE).exists():
            sizes = atomic.read_json(out / DONE)["sizes"]
            found |= {out / file for file in sizes if not file.startswith(os.pardir)}
    found |= _below(_unfinished(study))
    return {path for path in found if path.is_file() or path.is_symlink()}


def _unfinished(study: Study) -> list[Path]:
    """What killed processes left under temporary names."""
    tops = (study.folder / name for name in (*STAGES, TRIALS, JOBS))
    found = (path for top in tops for path in top.rglob(f"{atomic.PREFIX}*"))
    return [path for path in found if UNFINISHED.fullmatch(path.name)]


def _below(paths: Iterable[Path]) -> set[Path]:
    """These files, and all files below these folders."""
    return {file for path in paths for file in (path.rglob("*") if path.is_dir() else (path,))}


def _table(study: Study, groups: list[Group]) -> Table:
    shown = Table(title=f"{study.name} in {study.folder}", box=None)
    for column in ("what goes", "files", "size", "such as"):
        shown.add_column(column, no_wrap=column != "such as", overflow="fold")
    for group in groups:
        example = os.path.relpath(group.files[0], study.folder)
        shown.add_row(group.reason, f"{len(group.files):,}", size(group.bytes), example)
    return shown


def _asked() -> bool:
    """Ask on the terminal. Raises UserError where there is none."""
    if not sys.stdin.isatty():
        raise UserError("Nothing was removed, for nobody can be asked here: add --yes.")
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
