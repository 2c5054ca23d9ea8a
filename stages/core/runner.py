"""The run of a stage: by hand, by Snakemake, on a node or by a test, in the same way.

`run_stage` adds to a stage what all share: the lock, the completion record, the manifest and the
provenance. Where several ranks run a stage, the first holds the lock and keeps the records.

Files may disappear after a stage is done, on a scratch disk that purges old ones. A stage that is
about to run then says which stage to run first, and `refresh_manifests` has Snakemake run it: no
stage is run from inside another, where a node with GPUs would preprocess, and where neither a
plan nor `status` shows it.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import cast

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import UNSHARDED, CellShard
from ssl_pipeline.formatting import format_count
from ssl_pipeline.progress import debug, info, record_progress
from ssl_pipeline.provenance import Provenance
from ssl_pipeline.training.ranks import RankInfo
from stages.core import layout
from stages.core.elapsed import elapsed_before, record_elapsed
from stages.core.locks import stage_lock
from stages.core.ownership import claim_output
from stages.core.planning import require_plan
from stages.core.records import (
    CompletionRecord,
    compute_key,
    missing_files,
    read_completion,
    stage_key,
    valid_record,
    write_completion,
    write_declared_files,
)
from stages.core.stage import (
    CheckedStage,
    ShardedStage,
    Stage,
    load_stage,
    stage_command,
    stage_names,
)
from stages.core.stage_runs import runs_of_stage
from stages.core.study import Study

ROOT = Path(__file__).resolve().parents[2]


def run_stage(
    name: str, study: Study, wildcards: dict[str, str], shard: CellShard = UNSHARDED
) -> None:
    """Run a stage, unless it is done already. Raises UserError and whatever the stage raises.

    A shard of its work runs beside others, so without lock or records, and merges nothing.
    """
    study.pseudonyms.refuse_namesake()
    claim_output(study)
    if shard != UNSHARDED:
        _run_shard(name, study, wildcards, shard)
        return
    world = _ranks_of(name)
    out = study.stage_folder(name, wildcards)
    out.mkdir(parents=True, exist_ok=True)
    with stage_lock(out, name) if world.is_first else nullcontext():
        stage = load_stage(name)
        found = stage.inputs(study, **wildcards)
        config_hash = study.sections_hash(stage.CONFIG_KEYS, wildcards)
        key = compute_key(stage, config_hash, found, wildcards)
        done = valid_record(out, key)
        if not done:
            _check_dependencies(stage, study, wildcards)
        if not world.is_first:
            if not done:
                stage.run(study, out, **wildcards)
            return
        if done:
            info(f"{name}: nothing to do, {done.summary}")
        else:
            (out / layout.WITHDRAWN_MANIFEST).unlink(missing_ok=True)
            debug(f"{name}: runs, for {_rerun_reason(read_completion(out), config_hash, found)}")
            before = elapsed_before(out, key)
            record = Provenance(
                *(name, found, config_hash, study.seed, ROOT),
                first_start=before.first_start,
                earlier_s=before.seconds,
            )
            progress_file = layout.progress_file(study, study.run_name(name, wildcards))
            with record_elapsed(out, before), record_progress(progress_file, stage.TITLE):
                made = stage.run(study, out, **wildcards)
            done = write_completion(out, key, made, record)
            took = f"{done.provenance.wall_s:.0f} s"
            info(f"{name}: {made.summary} ({took})", error=made.n_failed > 0)
        if isinstance(stage, CheckedStage):
            stage.check_results(study)
        write_declared_files(out, done)


def _run_shard(name: str, study: Study, wildcards: dict[str, str], shard: CellShard) -> None:
    stage, out = load_stage(name), study.stage_folder(name, wildcards)
    out.mkdir(parents=True, exist_ok=True)
    if valid_record(out, stage_key(name, study, wildcards)) is None:
        _check_dependencies(stage, study, wildcards)
        cast(ShardedStage, stage).run_shard(study, out, shard, **wildcards)
    info(f"{name}: shard {shard.number} of {shard.count} is done")


def _check_dependencies(stage: Stage, study: Study, wildcards: dict[str, str]) -> None:
    """Raise UserError where earlier stages are done, but their files are not there any more.

    The plan is one of those files: what it has not filled in cannot be used.
    """
    if "preprocess" in (*stage.CONFIG_KEYS, *stage.DEPENDS_ON):
        require_plan(study)
    for earlier in (run for name in stage.DEPENDS_ON for run in runs_of_stage(study, name)):
        if any(wildcards.get(key, value) != value for key, value in earlier.wildcards.items()):
            continue
        name, done = earlier.stage, read_completion(earlier.out)
        gone = missing_files(earlier.out, done) if done else []
        if gone:
            raise UserError(
                f"Files of the stage {name} are missing or damaged "
                f"({format_count(len(gone), 'file')}, "
                f"such as {gone[0]}; a scratch disk that purges old files?): "
                f"`{stage_command(study, name, earlier.wildcards)}` makes it again, and so does "
                "Snakemake."
            )


def _ranks_of(name: str) -> RankInfo:
    """The ranks that run this stage. Raises UserError where it runs in one process alone."""
    world = RankInfo.from_environment()
    if world.world_size > 1 and not load_stage(name).DISTRIBUTED:
        distributed = ", ".join(stage_names(lambda stage: stage.DISTRIBUTED))
        raise UserError(
            f"WORLD_SIZE is {world.world_size}, but the stage {name} runs in one process: start it "
            f"without that variable; only {distributed} is shared by ranks."
        )
    return world


def _rerun_reason(
    done: CompletionRecord | None, config_hash: str, input_hashes: dict[str, str]
) -> str:
    """Why a stage runs again: what differs from its record, in words."""
    if done is None:
        return "it has not been completed here"
    if done.failed:
        return "some of its items failed"
    before = done.provenance.inputs
    names = sorted(before.keys() | input_hashes.keys())
    changed = [name for name in names if before.get(name) != input_hashes.get(name)]
    if done.provenance.config_hash != config_hash:
        changed.append("the settings that it reads")
    if not changed:
        return "its files are not as it left them, or its code has another version"
    return f"{', '.join(changed[:5])} changed" + (" among others" if len(changed) > 5 else "")
