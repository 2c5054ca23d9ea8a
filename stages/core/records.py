"""Completion records: what a stage has made, and for which version, settings and inputs.

A stage's own record `.done.json` is keyed by the hash of its version, settings and inputs. The two
files that a rule declares, manifest and provenance, are made from it, for Snakemake deletes the
declared outputs of a rule before it runs.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import file_size, sha256_file, sha256_json, write_json
from ssl_pipeline.io.records import (
    Record,
    parse_object,
    read_json_if_whole,
    read_record_if_whole,
    write_record,
)
from ssl_pipeline.provenance import PROVENANCE_FILE, Provenance, ProvenanceRecord
from stages.core.layout import COMPLETION_RECORD, MANIFEST, TRIALS_FOLDER
from stages.core.stage import Stage, StageResult, load_stage, load_stages, stage_command
from stages.core.study import Study


class Manifest(BaseModel):
    """The declared files of a stage with their hashes: equal for equal results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    files: dict[str, str]

    @property
    def sha256(self) -> str:
        """The hash by which later stages know it."""
        return sha256_json(self.model_dump())


class CompletionRecord(Record):
    """The record of a stage that has ended."""

    format: Literal[1] = 1
    key: str  # hash of the version, settings and inputs that it ran with
    sizes: dict[str, int]  # bytes of each of its files
    summary: str
    failed: int  # items that failed
    manifest: Manifest
    provenance: ProvenanceRecord


def read_completion(out: Path) -> CompletionRecord | None:
    """The completion record in a stage's folder; None where it has not been completed.

    A stage whose record is damaged runs again.
    """
    return read_record_if_whole(CompletionRecord, out / COMPLETION_RECORD)


def write_completion(
    out: Path, key: str, result: StageResult, provenance: Provenance
) -> CompletionRecord:
    """Write the record of a stage that has just ended, and return it."""
    files = {str(path.relative_to(out)): sha256_file(path) for path in sorted(result.files)}
    all_files = sorted([*result.files, *result.indexed_files])
    record = CompletionRecord(
        key=key,
        sizes={os.path.relpath(path, out): path.stat().st_size for path in all_files},
        summary=result.summary,
        failed=result.n_failed,
        manifest=Manifest(stage=provenance.stage, files=files),
        provenance=provenance.finish(**result.provenance),
    )
    write_record(out / COMPLETION_RECORD, record)
    return record


def write_declared_files(out: Path, record: CompletionRecord) -> None:
    """Write the two files that the rule declares, where they are missing or of another time."""
    declared: dict[str, dict[str, Any]] = {
        MANIFEST: record.manifest.model_dump(),
        PROVENANCE_FILE: record.provenance.model_dump(mode="json"),
    }
    for file, content in declared.items():
        if read_json_if_whole(parse_object, out / file) != content:
            write_json(out / file, content)


def valid_record(out: Path, key: str) -> CompletionRecord | None:
    """The record of a stage that is done for this key, with all its files there; else None."""
    done = read_completion(out)
    whole = done and done.key == key and not done.failed and not missing_files(out, done)
    return done if whole else None


def missing_files(out: Path, record: CompletionRecord) -> list[Path]:
    """The files of a stage that are missing, or of another size; one `stat` of each."""
    # By the words of the path, for `..` behind a link to another disk leads elsewhere.
    top = os.path.abspath(out)  # noqa: PTH100
    places = ((name, Path(os.path.normpath(f"{top}/{name}"))) for name in record.sizes)
    return [out / name for name, place in places if file_size(place) != record.sizes[name]]


def manifest_hash(study: Study, name: str, **wildcards: str) -> str:
    """Hash of an earlier stage's manifest. Raises UserError where it has not run."""
    out = study.stage_folder(name, wildcards)
    done = read_completion(out)
    if done is None:
        raise UserError(
            f"{out / COMPLETION_RECORD} is not there: run the stage {name} first, with "
            f"`{stage_command(study, name, wildcards)}`, or let Snakemake do it."
        )
    return done.manifest.sha256


def compute_key(
    stage: Stage, config_hash: str, input_hashes: dict[str, str], wildcards: dict[str, str]
) -> str:
    """Hash of all that decides the output of a stage: its version, settings and inputs."""
    return sha256_json([stage.VERSION, config_hash, input_hashes, wildcards])


def stage_key(name: str, study: Study, wildcards: dict[str, str]) -> str:
    """The key of a stage for the present settings and inputs."""
    stage = load_stage(name)
    config_hash = study.sections_hash(stage.CONFIG_KEYS, wildcards)
    return compute_key(stage, config_hash, stage.inputs(study, **wildcards), wildcards)


def stage_config_hash(name: str, study: Study, wildcards: dict[str, str]) -> str:
    """Hash of a stage's version and settings: what makes it run again, beside its inputs."""
    stage = load_stage(name)
    return sha256_json([stage.VERSION, study.sections_hash(stage.CONFIG_KEYS, wildcards)])


def is_stale(study: Study, name: str, wildcards: dict[str, str]) -> bool:
    """Whether a stage was last completed by another version, or with other settings."""
    done = read_completion(study.stage_folder(name, wildcards))
    if done is None:
        return False
    stage = load_stage(name)
    config_hash = study.sections_hash(stage.CONFIG_KEYS, wildcards)
    return done.key != compute_key(stage, config_hash, done.provenance.inputs, wildcards)


def up_to_date_record(
    name: str, study: Study, wildcards: dict[str, str]
) -> CompletionRecord | None:
    """The completion record of a stage that is up to date, else None.

    Of its inputs only earlier stages are compared; contents of raw files are not hashed for this.
    """
    done = read_completion(study.stage_folder(name, wildcards))
    if done is None or is_stale(study, name, wildcards):
        return None
    inputs = done.provenance.inputs
    for earlier in inputs.keys() & load_stages().keys():
        now = read_completion(study.stage_folder(earlier, {}))
        if now is None or now.manifest.sha256 != inputs[earlier]:
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
    done = read_completion(out) if just_run else valid_record(out, key)
    if done is None or done.key != key:
        return None
    write_declared_files(out, done)
    return done.summary


def stage_folders(study: Study) -> Iterator[tuple[str, Path]]:
    """The folders of stages that exist, also of tasks and trials that the study no longer has."""
    for name, stage in load_stages().items():
        pattern = "/".join([name, *("*" for _ in stage.WILDCARDS)])
        patterns = (pattern, f"{TRIALS_FOLDER}/*/{pattern}") if stage.PER_TRIAL else (pattern,)
        found = (out for each in patterns for out in sorted(study.folder.glob(each)))
        yield from ((name, out) for out in found if out.is_dir())
