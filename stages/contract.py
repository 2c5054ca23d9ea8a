"""One contract for every stage: called by hand, by Snakemake, on a node or by a test, alike.

A stage is a module with `READS` (the sections whose change makes it run again), `AFTER` (the stages
whose files it reads), `VERSION` (raised by hand when its meaning changes), `MAKES` (patterns of all
files in its folder), `inputs` (content hashes of what it reads), `need` (what it will take, asked
before it runs) and `run`. `perform` gives it what all share: the lock, the completion record, the
manifest and the provenance. A stage's own record `.done.json` is keyed by the hash of its version,
sections and inputs; the two files that a rule declares are made from it, for Snakemake deletes the
declared outputs of a rule before it runs. Where several ranks run a stage, the first holds the lock
and keeps the records.

Files may go after a stage is done, on a scratch that purges old ones. A stage that is about to run
then says which stage to run first, and `withdraw` has Snakemake run it: no stage is run from inside
another, where a node with GPUs would preprocess, and where neither a plan nor `status` shows it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from ssl_pipeline import fence
from ssl_pipeline.atomic import read_json, sha256_file, sha256_json, size_of, write_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import WHOLE, Share
from ssl_pipeline.progress import detail, say
from ssl_pipeline.provenance import Provenance
from ssl_pipeline.report.numerals import count
from ssl_pipeline.training.world import World
from stages.need import Known, Need, Place
from stages.study import BY_TRIAL, TRIALS, Study

ROOT = Path(__file__).resolve().parent.parent
STAGES: dict[str, tuple[str, ...]] = {  # name: wildcards
    "sample": (),
    "inventory": (),
    "preprocess": (),
    "budget": (),
    "pretrain": (),
    "probe": ("task",),
    "finetune": ("task",),
    "robustness": ("task",),
    "ablate": (),
    "report": (),
}
ON_RANKS = ("pretrain",)  # the stages that several ranks may run
DONE, MANIFEST, PROVENANCE = ".done.json", "manifest.json", "provenance.json"
LOCK = ".lock"
OWN = (DONE, MANIFEST, PROVENANCE, LOCK, fence.LEASE)  # files in the folder of every stage
UNDER_LEASE = ", a job"


@dataclass(frozen=True)
class Made:
    """What a stage made: its files, a sentence for the reader, and more for the provenance.

    `listed` are files that one of `files` holds the hashes of: of these only the size is kept.
    Where some of its items `failed`, what waits for the stage goes on, and the stage runs again the
    next time it is asked for.
    """

    files: list[Path]
    summary: str
    provenance: dict[str, Any] = field(default_factory=dict)
    listed: list[Path] = field(default_factory=list)
    failed: int = 0


@runtime_checkable
class Stage(Protocol):
    """What a stage's module has."""

    READS: tuple[str, ...]
    AFTER: tuple[str, ...]
    VERSION: int
    MAKES: tuple[str, ...]

    def inputs(self, study: Study, **wildcards: str) -> dict[str, str]:
        """Content hashes of what it reads, by name."""

    def need(self, study: Study, known: Known, on: Place, **wildcards: str) -> Need:
        """What it will take at a place; opens no more than tables and records."""

    def run(self, study: Study, out: Path, **wildcards: str) -> Made:
        """Do the work that is not done yet, into `out`."""


@runtime_checkable
class Shared(Stage, Protocol):
    """A stage whose work is cells, which several processes may share."""

    def run_share(self, study: Study, out: Path, share: Share, **wildcards: str) -> None:
        """Do a share of the work that is not done yet."""


def stage(name: str) -> Stage:
    """The module of a stage."""
    return cast(Stage, import_module(f"stages.{name}"))


def command(study: Study, name: str) -> str:
    """What runs a stage by hand."""
    which = f" trial={study.trial}" if study.trial and name in BY_TRIAL else ""
    return f"python -m stages {name} --config STUDY{which}"


def manifest_hash(study: Study, name: str, **wildcards: str) -> str:
    """Hash of what an earlier stage made. Raises UserError where it has not run."""
    path = study.stage_folder(name, wildcards) / DONE
    if not path.exists():
        raise UserError(
            f"{path} is not there: run the stage {name} first, with `{command(study, name)}`, "
            "or let Snakemake do it."
        )
    return sha256_json(read_json(path)["manifest"])


def perform(name: str, study: Study, wildcards: dict[str, str], share: Share = WHOLE) -> None:
    """Run a stage, unless it is done already. Raises UserError and whatever the stage raises.

    A share of its work is done beside others, so without lock or record, and puts nothing together.
    """
    if share != WHOLE:
        _perform_share(name, study, wildcards, share)
        return
    world = _world_of(name)
    module, out = stage(name), study.stage_folder(name, wildcards)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out, name) if world.first else nullcontext():
        found = module.inputs(study, **wildcards)
        config_hash = study.sections_hash(module.READS, wildcards)
        key = _key(module, config_hash, found, wildcards)
        done = _completed(out, key)
        if not world.first:
            if not done:
                _see_to_files(module, study)
                module.run(study, out, **wildcards)
            return
        if done:
            say(f"{name}: nothing to do, {done['summary']}")
        else:
            detail(f"{name}: runs, for {_why(out, config_hash, found)}")
            _see_to_files(module, study)
            record = Provenance(name, found, config_hash, study.seed, ROOT)
            made = module.run(study, out, **wildcards)
            done = _complete(out, key, made, record)
            took = f"{done['provenance']['wall_s']:.0f} s"
            say(f"{name}: {made.summary} ({took})", error=made.failed > 0)
        _declare(out, done)


def _perform_share(name: str, study: Study, wildcards: dict[str, str], share: Share) -> None:
    module, out = stage(name), study.stage_folder(name, wildcards)
    out.mkdir(parents=True, exist_ok=True)
    if _completed(out, key_of(name, study, wildcards)) is None:
        _see_to_files(module, study)
        cast(Shared, module).run_share(study, out, share, **wildcards)
    say(f"{name}: share {share.number} of {share.of} is done")


def key_of(name: str, study: Study, wildcards: dict[str, str]) -> str:
    """Hash of all that decides what a stage makes: its version, sections and inputs."""
    module = stage(name)
    found = module.inputs(study, **wildcards)
    return _key(module, study.sections_hash(module.READS, wildcards), found, wildcards)


def former(name: str, study: Study, wildcards: dict[str, str]) -> dict[str, Any] | None:
    """The record of a stage that has run, as it is now, with the present sections on what is there.

    Of its inputs those are compared that are stages; contents of raw files are not hashed for this.
    """
    done = _record(study.stage_folder(name, wildcards))
    if done is None or outdated(study, name, wildcards):
        return None
    before = done["provenance"]["inputs"]
    for earlier in before.keys() & STAGES.keys():
        there = (study.stage_folder(earlier, {}) / DONE).exists()
        if not there or manifest_hash(study, earlier) != before[earlier]:
            return None
    return done


def settle(
    name: str, study: Study, wildcards: dict[str, str], key: str, *, just_run: bool = False
) -> str | None:
    """The summary of a stage that is done for this key, with its declared files there; or None.

    A stage that a node has just run is believed to have its files: for a minute, this machine may
    not see what was missing when it last looked.
    """
    out = study.stage_folder(name, wildcards)
    done = _record(out) if just_run else _completed(out, key)
    if done is None or done["key"] != key:
        return None
    _declare(out, done)
    return str(done["summary"])


def outdated(study: Study, name: str, wildcards: dict[str, str]) -> bool:
    """Whether a stage was last completed by another version, or for other values that it reads."""
    done = _record(study.stage_folder(name, wildcards))
    if done is None:
        return False
    module = stage(name)
    now = study.sections_hash(module.READS, wildcards)
    return bool(done["key"] != _key(module, now, done["provenance"]["inputs"], wildcards))


def reads_hash(name: str, study: Study, wildcards: dict[str, str]) -> str:
    """Hash of what makes a stage run again beside its inputs: its version, and what it reads."""
    module = stage(name)
    return sha256_json([module.VERSION, study.sections_hash(module.READS, wildcards)])


def folders(study: Study) -> list[tuple[str, Path]]:
    """The folders of stages that are there, also of tasks and trials that it has no more."""
    return list(_folders(study.folder))


def _folders(folder: Path) -> Iterator[tuple[str, Path]]:
    for name, wildcards in STAGES.items():
        pattern = "/".join([name, *("*" for _ in wildcards)])
        patterns = (pattern, f"{TRIALS}/*/{pattern}") if name in BY_TRIAL else (pattern,)
        found = (out for each in patterns for out in sorted(folder.glob(each)))
        yield from ((name, out) for out in found if out.is_dir())


def withdraw(folder: Path) -> None:
    """Take back what stages declared that are not whole, so that Snakemake runs them if needed.

    What rules declare is all that it looks at. A stage whose files are there declares them again.
    """
    for _, out in _folders(folder):
        done = _record(out)
        if done is None or done.get("failed") or _gone(out, done):
            (out / MANIFEST).unlink(missing_ok=True)


def _see_to_files(module: Stage, study: Study) -> None:
    """Raise UserError where earlier stages are done, but what they made is not there any more."""
    for name in module.AFTER:
        if name == "pretrain" and not study.pretrains:
            continue
        out = study.stage_folder(name, {})
        done = _record(out)
        gone = _gone(out, done) if done else []
        if gone:
            raise UserError(
                f"What the stage {name} made is not whole any more ({count(len(gone), 'file')}, "
                f"such as {gone[0]}; a scratch that purges old files?): "
                f"`{command(study, name)}` makes it again, and so does Snakemake."
            )


def _key(module: Stage, config: str, found: dict[str, str], wildcards: dict[str, str]) -> str:
    return sha256_json([module.VERSION, config, found, wildcards])


def _declare(out: Path, done: dict[str, Any]) -> None:
    """Write the two files that the rule declares, where they are missing or of another time."""
    for file, content in ((MANIFEST, done["manifest"]), (PROVENANCE, done["provenance"])):
        if not (out / file).exists() or read_json(out / file) != content:
            write_json(out / file, content)


def _world_of(name: str) -> World:
    """The ranks that run this stage together. Raises UserError where it runs on one alone."""
    world = World.from_environment()
    if world.size > 1 and name not in ON_RANKS:
        raise UserError(
            f"WORLD_SIZE is {world.size}, but the stage {name} runs in one process: start it "
            f"without that variable; only {', '.join(ON_RANKS)} is shared by ranks."
        )
    return world


def _why(out: Path, config_hash: str, inputs: dict[str, str]) -> str:
    """Why a stage is not done: what differs from its record, in words."""
    if not (out / DONE).exists():
        return "it has not been completed here"
    if read_json(out / DONE).get("failed"):
        return "some of it failed"
    before = read_json(out / DONE)["provenance"]
    names = sorted(before["inputs"].keys() | inputs.keys())
    changed = [name for name in names if before["inputs"].get(name) != inputs.get(name)]
    if before["config_hash"] != config_hash:
        changed.append("the study's sections that it reads")
    if not changed:
        return "its files are not as it left them, or its code has another version"
    return f"{', '.join(changed[:5])} changed" + (" among others" if len(changed) > 5 else "")


def _complete(out: Path, key: str, made: Made, record: Provenance) -> dict[str, Any]:
    files = {str(path.relative_to(out)): sha256_file(path) for path in sorted(made.files)}
    all_files = sorted([*made.files, *made.listed])
    done = {
        "key": key,
        "sizes": {os.path.relpath(path, out): path.stat().st_size for path in all_files},
        "summary": made.summary,
        "failed": made.failed,
        "manifest": {"stage": record.stage, "files": files},
        "provenance": record.finish(**made.provenance),
    }
    write_json(out / DONE, done)
    return done


def _completed(out: Path, key: str) -> dict[str, Any] | None:
    """The record of a stage that is done for this key, whole and with all its files there."""
    done = _record(out)
    whole = done and done["key"] == key and not done.get("failed") and not _gone(out, done)
    return done if whole else None


def _record(out: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = read_json(out / DONE) if (out / DONE).exists() else None
    return found


def _gone(out: Path, done: dict[str, Any]) -> list[Path]:
    """The files of a stage that are not there any more, or not in full; one look at each."""
    # By the words of the path, for `..` behind a link to another disk leads elsewhere.
    top = os.path.abspath(out)  # noqa: PTH100
    places = ((name, Path(os.path.normpath(f"{top}/{name}"))) for name in done["sizes"])
    return [out / name for name, place in places if size_of(place) != done["sizes"][name]]


@contextmanager
def alone(out: Path, name: str) -> Iterator[None]:
    """Hold the stage's lock, which any end of the process frees.

    An attempt of a job goes on without it: who holds a lease is alone by its fence, and a process
    that hangs on a lost node would keep the lock for ever.
    """
    with open(out / LOCK, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            if not (fence.is_held() and holder.endswith(UNDER_LEASE)):
                raise UserError(
                    f"The stage {name} already runs in {out} ({holder}): "
                    "wait for it, or end that process."
                ) from None
        else:
            if not fence.is_held():
                fence.revoke(out)
            lock.truncate(0)
            mark = UNDER_LEASE if fence.is_held() else ""
            lock.write(f"process {os.getpid()} on {os.uname().nodename}{mark}")
            lock.flush()
        yield
