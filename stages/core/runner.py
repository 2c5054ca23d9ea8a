"""The contract of stages, and how one is run: by hand, by Snakemake, on a node or by a test, alike.

A stage is a module with `CONFIG_KEYS` (the settings whose change makes it run again), `DEPENDS_ON`
(the stages whose files it reads), `VERSION` (raised by hand when its outputs change), `OUTPUTS`
(patterns of all files in its folder), `inputs` (content hashes of what it reads),
`estimate_resources` and `run`. `run_stage` adds what all share: the lock, the completion record,
the manifest and the provenance. A stage's own record `.done.json` is keyed by the hash of its
version, settings and inputs; the two files that a rule declares are made from it, for Snakemake
deletes the declared outputs of a rule before it runs. Where several ranks run a stage, the first
holds the lock and keeps the records.

Files may disappear after a stage is done, on a scratch disk that purges old ones. A stage that is
about to run then says which stage to run first, and `remove_stale_manifests` has Snakemake run it:
no stage is run from inside another, where a node with GPUs would preprocess, and where neither a
plan nor `status` shows it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import UNSHARDED, CellShard
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io import lease
from ssl_pipeline.io.atomic import file_size, read_json, sha256_file, sha256_json, write_json
from ssl_pipeline.io.locks import try_exclusive_lock
from ssl_pipeline.progress import debug, info
from ssl_pipeline.provenance import Provenance
from ssl_pipeline.training.ranks import RankInfo
from stages.core.resources import DatasetSize, Hardware, ResourceEstimate
from stages.core.study import TRIAL_STAGES, TRIALS_FOLDER, Study

ROOT = Path(__file__).resolve().parents[2]
STAGES: dict[str, tuple[str, ...]] = {  # name: wildcards
    "download": (),
    "inventory": (),
    "inventory_page": (),
    "preprocess": (),
    "flop_budget": (),
    "pretrain": (),
    "probe": ("task",),
    "finetune": ("task",),
    "robustness": ("task",),
    "ablate": (),
    "report": (),
}
DISTRIBUTED_STAGES = ("pretrain",)  # the stages that several ranks may run
COMPLETION_RECORD, MANIFEST, PROVENANCE = ".done.json", "manifest.json", "provenance.json"
LOCK = ".lock"
# Files in the folder of every stage.
RECORD_FILES = (COMPLETION_RECORD, MANIFEST, PROVENANCE, LOCK, lease.LEASE_FILE)
LEASE_MARK = ", a job"


@dataclass(frozen=True)
class StageResult:
    """The result of a stage: its files, a sentence for the reader, and more for the provenance.

    `indexed_files` are files whose hashes one of `files` holds: of these only the size is kept.
    Where `n_failed` of its items failed, the stages after it go on, and it runs again the next time
    that it is asked for.
    """

    files: list[Path]
    summary: str
    provenance: dict[str, Any] = field(default_factory=dict)
    indexed_files: list[Path] = field(default_factory=list)
    n_failed: int = 0


@runtime_checkable
class Stage(Protocol):
    """What the module of a stage defines."""

    CONFIG_KEYS: tuple[str, ...]
    DEPENDS_ON: tuple[str, ...]
    VERSION: int
    OUTPUTS: tuple[str, ...]

    def inputs(self, study: Study, **wildcards: str) -> dict[str, str]:
        """Content hashes of its inputs, by name."""

    def estimate_resources(
        self, study: Study, dataset: DatasetSize, hardware: Hardware, **wildcards: str
    ) -> ResourceEstimate:
        """What it will take on this hardware; opens no more than tables and records."""

    def run(self, study: Study, out: Path, **wildcards: str) -> StageResult:
        """Do the work that is not done yet, into `out`."""


@runtime_checkable
class ShardedStage(Stage, Protocol):
    """A stage whose work consists of cells, which several processes may divide."""

    def run_shard(self, study: Study, out: Path, shard: CellShard, **wildcards: str) -> None:
        """Do a shard of the work that is not done yet."""


def load_stage(name: str) -> Stage:
    """The module of a stage."""
    return cast(Stage, import_module(f"stages.{name}"))


def stage_command(study: Study, name: str) -> str:
    """The command that runs a stage by hand."""
    which = f" trial={study.trial}" if study.trial and name in TRIAL_STAGES else ""
    return f"python -m stages {name} --config STUDY{which}"


def manifest_hash(study: Study, name: str, **wildcards: str) -> str:
    """Hash of an earlier stage's manifest. Raises UserError where it has not run."""
    path = study.stage_folder(name, wildcards) / COMPLETION_RECORD
    if not path.exists():
        raise UserError(
            f"{path} is not there: run the stage {name} first, with "
            f"`{stage_command(study, name)}`, or let Snakemake do it."
        )
    return sha256_json(read_json(path)["manifest"])


def run_stage(
    name: str, study: Study, wildcards: dict[str, str], shard: CellShard = UNSHARDED
) -> None:
    """Run a stage, unless it is done already. Raises UserError and whatever the stage raises.

    A shard of its work runs beside others, so without lock or record, and merges nothing.
    """
    if shard != UNSHARDED:
        _run_shard(name, study, wildcards, shard)
        return
    world = _ranks_of(name)
    module, out = load_stage(name), study.stage_folder(name, wildcards)
    out.mkdir(parents=True, exist_ok=True)
    with stage_lock(out, name) if world.is_first else nullcontext():
        found = module.inputs(study, **wildcards)
        config_hash = study.sections_hash(module.CONFIG_KEYS, wildcards)
        key = _compute_key(module, config_hash, found, wildcards)
        done = _valid_record(out, key)
        if not world.is_first:
            if not done:
                _check_dependencies(module, study)
                module.run(study, out, **wildcards)
            return
        if done:
            info(f"{name}: nothing to do, {done['summary']}")
        else:
            debug(f"{name}: runs, for {_rerun_reason(out, config_hash, found)}")
            _check_dependencies(module, study)
            record = Provenance(name, found, config_hash, study.seed, ROOT)
            made = module.run(study, out, **wildcards)
            done = _write_completion_record(out, key, made, record)
            took = f"{done['provenance']['wall_s']:.0f} s"
            info(f"{name}: {made.summary} ({took})", error=made.n_failed > 0)
        _write_declared_files(out, done)


def _run_shard(name: str, study: Study, wildcards: dict[str, str], shard: CellShard) -> None:
    module, out = load_stage(name), study.stage_folder(name, wildcards)
    out.mkdir(parents=True, exist_ok=True)
    if _valid_record(out, stage_key(name, study, wildcards)) is None:
        _check_dependencies(module, study)
        cast(ShardedStage, module).run_shard(study, out, shard, **wildcards)
    info(f"{name}: shard {shard.number} of {shard.count} is done")


def stage_key(name: str, study: Study, wildcards: dict[str, str]) -> str:
    """Hash of all that decides the output of a stage: its version, settings and inputs."""
    module = load_stage(name)
    found = module.inputs(study, **wildcards)
    return _compute_key(
        module, study.sections_hash(module.CONFIG_KEYS, wildcards), found, wildcards
    )


def up_to_date_record(name: str, study: Study, wildcards: dict[str, str]) -> dict[str, Any] | None:
    """The completion record of a stage that is up to date, else None.

    Of its inputs only earlier stages are compared; contents of raw files are not hashed for this.
    """
    done = _read_record(study.stage_folder(name, wildcards))
    if done is None or is_stale(study, name, wildcards):
        return None
    before = done["provenance"]["inputs"]
    for earlier in before.keys() & STAGES.keys():
        there = (study.stage_folder(earlier, {}) / COMPLETION_RECORD).exists()
        if not there or manifest_hash(study, earlier) != before[earlier]:
            return None
    return done


def declare_if_complete(
    name: str, study: Study, wildcards: dict[str, str], key: str, *, just_run: bool = False
) -> str | None:
    """The summary of a stage that is done for this key, its declared files written; else None.

    A stage that a node has just run is trusted to have its files: for a minute, this machine may
    not see them on a shared file system.
    """
    out = study.stage_folder(name, wildcards)
    done = _read_record(out) if just_run else _valid_record(out, key)
    if done is None or done["key"] != key:
        return None
    _write_declared_files(out, done)
    return str(done["summary"])


def is_stale(study: Study, name: str, wildcards: dict[str, str]) -> bool:
    """Whether a stage was last completed by another version, or with other settings."""
    done = _read_record(study.stage_folder(name, wildcards))
    if done is None:
        return False
    module = load_stage(name)
    now = study.sections_hash(module.CONFIG_KEYS, wildcards)
    return bool(done["key"] != _compute_key(module, now, done["provenance"]["inputs"], wildcards))


def stage_config_hash(name: str, study: Study, wildcards: dict[str, str]) -> str:
    """Hash of a stage's version and settings: what makes it run again, beside its inputs."""
    module = load_stage(name)
    return sha256_json([module.VERSION, study.sections_hash(module.CONFIG_KEYS, wildcards)])


def stage_folders(study: Study) -> list[tuple[str, Path]]:
    """The folders of stages that exist, also of tasks and trials that the study no longer has."""
    return list(_find_stage_folders(study.folder))


def _find_stage_folders(folder: Path) -> Iterator[tuple[str, Path]]:
    for name, wildcards in STAGES.items():
        pattern = "/".join([name, *("*" for _ in wildcards)])
        patterns = (pattern, f"{TRIALS_FOLDER}/*/{pattern}") if name in TRIAL_STAGES else (pattern,)
        found = (out for each in patterns for out in sorted(folder.glob(each)))
        yield from ((name, out) for out in found if out.is_dir())


def remove_stale_manifests(folder: Path) -> None:
    """Remove manifests of stages whose files are missing, so that Snakemake runs them if needed.

    It looks at declared files alone. A stage whose files are there declares them again.
    """
    for _, out in _find_stage_folders(folder):
        done = _read_record(out)
        if done is None or done.get("failed") or _missing_files(out, done):
            (out / MANIFEST).unlink(missing_ok=True)


def _check_dependencies(module: Stage, study: Study) -> None:
    """Raise UserError where earlier stages are done, but their files are not there any more."""
    for name in module.DEPENDS_ON:
        if name == "pretrain" and not study.has_pretraining:
            continue
        out = study.stage_folder(name, {})
        done = _read_record(out)
        gone = _missing_files(out, done) if done else []
        if gone:
            raise UserError(
                f"Files of the stage {name} are missing or damaged "
                f"({format_count(len(gone), 'file')}, "
                f"such as {gone[0]}; a scratch disk that purges old files?): "
                f"`{stage_command(study, name)}` makes it again, and so does Snakemake."
            )


def _compute_key(
    module: Stage, config_hash: str, input_hashes: dict[str, str], wildcards: dict[str, str]
) -> str:
    return sha256_json([module.VERSION, config_hash, input_hashes, wildcards])


def _write_declared_files(out: Path, record: dict[str, Any]) -> None:
    """Write the two files that the rule declares, where they are missing or of another time."""
    for file, content in ((MANIFEST, record["manifest"]), (PROVENANCE, record["provenance"])):
        if not (out / file).exists() or read_json(out / file) != content:
            write_json(out / file, content)


def _ranks_of(name: str) -> RankInfo:
    """The ranks that run this stage. Raises UserError where it runs in one process alone."""
    world = RankInfo.from_environment()
    if world.world_size > 1 and name not in DISTRIBUTED_STAGES:
        raise UserError(
            f"WORLD_SIZE is {world.world_size}, but the stage {name} runs in one process: start it "
            f"without that variable; only {', '.join(DISTRIBUTED_STAGES)} is shared by ranks."
        )
    return world


def _rerun_reason(out: Path, config_hash: str, input_hashes: dict[str, str]) -> str:
    """Why a stage runs again: what differs from its record, in words."""
    if not (out / COMPLETION_RECORD).exists():
        return "it has not been completed here"
    if read_json(out / COMPLETION_RECORD).get("failed"):
        return "some of its items failed"
    before = read_json(out / COMPLETION_RECORD)["provenance"]
    names = sorted(before["inputs"].keys() | input_hashes.keys())
    changed = [name for name in names if before["inputs"].get(name) != input_hashes.get(name)]
    if before["config_hash"] != config_hash:
        changed.append("the settings that it reads")
    if not changed:
        return "its files are not as it left them, or its code has another version"
    return f"{', '.join(changed[:5])} changed" + (" among others" if len(changed) > 5 else "")


def _write_completion_record(
    out: Path, key: str, result: StageResult, provenance: Provenance
) -> dict[str, Any]:
    files = {str(path.relative_to(out)): sha256_file(path) for path in sorted(result.files)}
    all_files = sorted([*result.files, *result.indexed_files])
    done = {
        "key": key,
        "sizes": {os.path.relpath(path, out): path.stat().st_size for path in all_files},
        "summary": result.summary,
        "failed": result.n_failed,
        "manifest": {"stage": provenance.stage, "files": files},
        "provenance": provenance.finish(**result.provenance),
    }
    write_json(out / COMPLETION_RECORD, done)
    return done


def _valid_record(out: Path, key: str) -> dict[str, Any] | None:
    """The record of a stage that is done for this key, with all its files there; else None."""
    done = _read_record(out)
    whole = done and done["key"] == key and not done.get("failed") and not _missing_files(out, done)
    return done if whole else None


def _read_record(out: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (
        read_json(out / COMPLETION_RECORD) if (out / COMPLETION_RECORD).exists() else None
    )
    return found


def _missing_files(out: Path, record: dict[str, Any]) -> list[Path]:
    """The files of a stage that are missing, or of another size; one `stat` of each."""
    # By the words of the path, for `..` behind a link to another disk leads elsewhere.
    top = os.path.abspath(out)  # noqa: PTH100
    places = ((name, Path(os.path.normpath(f"{top}/{name}"))) for name in record["sizes"])
    return [out / name for name, place in places if file_size(place) != record["sizes"][name]]


@contextmanager
def stage_lock(out: Path, name: str) -> Iterator[None]:
    """Hold the stage's lock, which any end of the process frees.

    An attempt of a job goes on without it: its lease already makes it the only writer, and a
    process that hangs on a lost node would keep the lock for ever.
    """
    mark = LEASE_MARK if lease.is_held() else ""
    own = f"process {os.getpid()} on {os.uname().nodename}{mark}"
    with try_exclusive_lock(out / LOCK, own) as holder:
        if holder is not None and not (lease.is_held() and holder.endswith(LEASE_MARK)):
            raise UserError(
                f"The stage {name} already runs in {out} ({holder}): wait for it, or end that "
                "process."
            )
        if holder is None and not lease.is_held():
            lease.revoke(out)
        yield
