"""Commands on a registry of encoders: `ssl-pipeline registry`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from ssl_pipeline import __version__
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.manifest import read_manifest
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.progress import info
from ssl_pipeline.provenance import git_commit
from ssl_pipeline.registry import aliases
from ssl_pipeline.registry.entry import SHORT_ID, EntryCohort, EntryContent, RegistryEntry
from ssl_pipeline.registry.registry import Registry
from ssl_pipeline.training.run_record import RunRecord, read_run_record
from stages.core import layout
from stages.core.pretraining_runs import PretrainingRun, pretraining_run
from stages.core.study import Study


def add_encoder(study: Study, folder: Path, name: str, alias: str, reason: str) -> None:
    """Add a study's encoder and newest checkpoint, and point an alias to it if one is named.

    Raises UserError where the study has no encoder, or where another process moved the alias.
    """
    registry = Registry(folder)
    expected = registry.current(name, alias) if alias else None
    entry = add_study_encoder(study, registry, EntryContent(name=name, reason=reason))
    if alias:
        registry.move(name, alias, entry, expected, reason)
        info(f"registry: {name}@{alias} points to {entry[:SHORT_ID]}")


def add_study_encoder(study: Study, registry: Registry, content: EntryContent) -> str:
    """Add a study's encoder and newest checkpoint, with where they come from; return the ID.

    `content` says the rest. Raises UserError where the study has no encoder.
    """
    run, record = pretraining_run(study), _finished_run(study)
    origin = {
        "study": study.name,
        "configuration": study.redacted_config,
        "training_summary": read_manifest(study.encoder).training_summary,
        "cohorts": tuple(_cohorts(run)),
        "salt_fingerprint": record.salt,
        "version": __version__,
        "git_commit": git_commit(Path(__file__).parent),
    }
    checkpoint = _newest_checkpoint(study.stage_folder("pretrain", {}) / record.folder)
    entry = registry.add(content.model_copy(update=origin), study.encoder, checkpoint)
    info(f"registry: {entry[:SHORT_ID]} is {study.name}'s encoder, in {registry.folder}")
    return entry


def entries_table(folder: Path) -> Table:
    """One row an entry, the oldest first."""
    registry = _existing(folder)
    pointing = registry.aliases()
    rows = (
        (
            identifier[:SHORT_ID],
            entry.content.name,
            ", ".join(alias for alias, target in pointing.items() if target == identifier),
            entry.content.study,
            entry.created_at,
            entry.content.verdict,
        )
        for identifier, entry in registry.entries().items()
    )
    return _table(("entry", "name", "aliases", "study", "added", "verdict"), rows)


def describe_entry(folder: Path, reference: str) -> str:
    """The record of an entry as JSON, with its whole ID and the folder of its encoder."""
    registry = _existing(folder)
    identifier = registry.resolve(reference)
    record = registry.entry(identifier).model_dump(mode="json")
    shown = {"id": identifier, "encoder": str(registry.encoder_folder(identifier)), **record}
    return json.dumps(shown, indent=1, ensure_ascii=False)


def lineage_table(folder: Path, reference: str) -> Table:
    """One row for the entry and each that it continues, the newest first."""
    registry = _existing(folder)
    lineage = registry.lineage(registry.resolve(reference))
    rows = (_lineage_row(identifier, entry) for identifier, entry in lineage)
    return _table(("entry", "study", "added", "cohorts", "salt", "version", "commit"), rows)


def write_page(folder: Path, page: Path) -> None:
    """Write the family trees of a registry as an HTML page."""
    from ssl_pipeline.report.registry_page import write_registry_page

    write_registry_page(_existing(folder), page)
    info(f"registry: the page is {page}")


def difference_table(folder: Path, reference: str, other: str) -> Table:
    """One row for each value that two entries do not share."""
    registry = _existing(folder)
    values = [
        dict(_leaves(registry.entry(registry.resolve(each)).content.model_dump(mode="json")))
        for each in (reference, other)
    ]
    keys = dict.fromkeys([*values[0], *values[1]])
    rows = ((key, *(str(each.get(key, "")) for each in values)) for key in keys)
    return _table(("value", reference, other), (row for row in rows if row[1] != row[2]))


def history_table(folder: Path, alias: str) -> Table:
    """One row for each move of an alias, the oldest first."""
    moves = aliases.read_moves(_alias_folder(_existing(folder), alias))
    rows = (
        (move.moved_at, move.moved_by, "back to" if move.is_rollback else "to",
         move.entry[:SHORT_ID], move.reason)
        for move in moves
    )  # fmt: skip
    return _table(("time (UTC)", "by", "", "entry", "reason"), rows)


def roll_back_alias(folder: Path, alias: str, reason: str) -> None:
    """Point an alias to what it pointed to before, and say so."""
    entry = aliases.roll_back(_alias_folder(_existing(folder), alias), reason)
    info(f"registry: {alias} points to {entry[:SHORT_ID]} again")


def verify_registry(folder: Path) -> str:
    """A sentence on what was checked. Raises UserError, after naming all damage, where there is."""
    registry = _existing(folder)
    damage = list(registry.find_damage())
    for sentence in damage:
        info(sentence, error=True)
    if damage:
        raise UserError(f"{folder}: {format_count(len(damage), 'fault')} found.")
    counts = (("entry", "entries", registry.entries()), ("alias", "aliases", registry.aliases()))
    checked = [f"{len(found)} {one if len(found) == 1 else many}" for one, many, found in counts]
    banks = format_count(len(registry.bank_files()), "bank")
    return f"{folder}: {', '.join(checked)} and {banks} as written"


def _existing(folder: Path) -> Registry:
    if not (folder / "entries").is_dir():
        raise UserError(f"{folder} is no registry: `ssl-pipeline registry add` makes one.")
    return Registry(folder)


def _alias_folder(registry: Registry, reference: str) -> Path:
    registry.resolve(reference)
    name, _, alias = reference.partition("@")
    return registry.alias_folder(name, alias)


def _finished_run(study: Study) -> RunRecord:
    record = read_run_record(study.stage_folder("pretrain", {}))
    if record is None:
        raise UserError(f"{study.name} has no encoder yet: run `python -m stages pretrain` first.")
    return record


def _newest_checkpoint(run_folder: Path) -> list[Path]:
    """The newest checkpoint with its seal; none where the study no longer has one."""
    newest = sorted(layout.checkpoints_folder(run_folder).glob("step-*.pt"))[-1:]
    return [path for step in newest for path in (step, step.with_suffix(".json"))]


def _cohorts(run: PretrainingRun) -> Iterator[EntryCohort]:
    for each in run.lineage:
        yield EntryCohort(sha256=sha256_json(each.cohort_items), volumes=len(each.cohort.checksums))


def _lineage_row(identifier: str, entry: RegistryEntry | None) -> tuple[str, ...]:
    if entry is None:
        return (identifier[:SHORT_ID], "gone from the registry", *[""] * 5)
    content = entry.content
    cohorts = ", ".join(f"{each.sha256[:SHORT_ID]} ({each.volumes})" for each in content.cohorts)
    commit = content.git_commit[:SHORT_ID]
    words = (content.study, entry.created_at, cohorts, content.salt_fingerprint[:SHORT_ID])
    return (identifier[:SHORT_ID], *words, content.version, commit)


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a nested mapping, by their dotted paths."""
    if not isinstance(node, Mapping):
        yield path, node
        return
    for key, value in node.items():
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Table:
    shown = Table(box=None)
    for column in columns:
        shown.add_column(column)
    for row in rows:
        shown.add_row(*row)
    return shown
