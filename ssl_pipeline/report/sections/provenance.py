"""Provenance tables, from the records that every stage writes beside its outputs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ssl_pipeline.formatting import NO_VALUE, format_duration
from ssl_pipeline.provenance import ProvenanceRecord
from ssl_pipeline.report.render.table import Table

Records = Mapping[str, ProvenanceRecord]  # by stage, or stage and task


def stage_table(records: Records) -> Table:
    """When each stage ran, how long, with how much memory, and from which code."""
    rows = [
        (
            name,
            datetime.fromisoformat(record.started_at).strftime("%Y-%m-%d %H:%M"),
            format_duration(record.wall_s),
            f"{record.peak_memory_gib:.2f}",
            str(record.seed),
            _short_commit(record.git_commit),
            record.config_hash[:12],
        )
        for name, record in records.items()
    ]
    head = ("stage", "started (UTC)", "wall time", "peak GiB", "seed", "commit", "config")
    return Table("Stages", head, rows, text_columns=2)


def version_table(records: Records) -> Table | None:
    """Packages that the stages ran with; one column where all had the same."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, record in records.items():
        groups.setdefault(tuple(sorted(record.versions.items())), []).append(name)
    if not groups:
        return None
    named = [dict(group) for group in groups]
    packages = sorted({package for group in named for package in group})
    rows = [(p, *(group.get(p, NO_VALUE) for group in named)) for p in packages]
    stages = list(groups.values())
    head = [", ".join(names) for names in stages] if len(stages) > 1 else ["all stages"]
    return Table("Versions", ("package", *head), rows)


def licence_table(records: Records) -> Table | None:
    """Licences of sample packages; None where no scans came from packages."""
    given = {k: v for record in records.values() for k, v in record.licences.items()}
    rows = sorted(given.items())
    head = ("package", "licence")
    return Table("Licences of the sample scans", head, rows, text_columns=2) if rows else None


def training_table(records: Records) -> Table | None:
    """The training summary of pretraining; None where it has not run."""
    summary = records["pretrain"].training_summary if "pretrain" in records else {}
    rows = [(key.replace("_", " "), _value_text(value)) for key, value in summary.items()]
    return Table("The run", ("quantity", "value"), rows) if rows else None


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short_commit(commit: str) -> str:
    """The first digits of a commit, and whether files differed from it."""
    head, plus, changes = commit.partition("+")
    return head[:10] + plus + changes if commit else NO_VALUE
