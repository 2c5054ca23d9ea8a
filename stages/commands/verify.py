"""Verify stored volumes and declared files of stages against their hashes: `ssl-pipeline verify`.

A disk that loses bits does so silently. Damaged files can be removed at once: the stages then make
them again, a stored volume alone, and equal, so that nothing after it runs again.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import remove_path, sha256_file
from ssl_pipeline.progress import info, progress
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.verify import find_damage as verify_volume
from stages.commands.clean import exclusive_access
from stages.core import layout
from stages.core.layout import COMPLETION_RECORD
from stages.core.records import read_completion, stage_folders
from stages.core.study import Study

WORKERS = os.cpu_count() or 1


def verify_study(study: Study, *, remove: bool) -> None:
    """Report damaged files, and with `remove` remove them. Raises UserError where some are.

    It does not wait: while a stage runs, here or as a job, it raises UserError.
    """
    with exclusive_access(study):
        checked, damaged = _find_damage(study)
        for path, what in damaged.items():
            info(what)
            if remove:
                remove_path(path)
    if not damaged:
        info(f"verify: {checked} whole")
    elif remove:
        parts = format_count(len(damaged), "damaged part")
        info(f"verify: {parts} removed; run snakemake to remake them")
    else:
        raise UserError(
            f"{format_count(len(damaged), 'damaged part')} of {checked}: add --remove, then run "
            "snakemake, which makes them again."
        )


def _find_damage(study: Study) -> tuple[str, dict[Path, str]]:
    """What was checked, and the damage of each part to be removed: a volume, or a file."""
    volumes, files = dict.fromkeys(_volumes(study), ""), dict(_files(study))
    parts = volumes | files
    found = {}
    with ThreadPoolExecutor(WORKERS) as pool, progress("Verifying", len(parts)) as bar:
        for path, fault in zip(
            parts, pool.map(_describe_damage, parts, parts.values()), strict=True
        ):
            bar.advance(path.name)
            if fault:
                found[path] = fault
    return f"{format_count(len(volumes), 'volume')} and {format_count(len(files), 'file')}", found


def _volumes(study: Study) -> Iterator[Path]:
    """The folders of the stored volumes that the catalog names."""
    catalog = layout.catalog_table(study)
    if catalog.exists():
        for entry in Catalog.read(catalog).entries:
            yield layout.volumes_folder(study) / f"{entry.id}.zarr"


def _files(study: Study) -> Iterator[tuple[Path, str]]:
    """The files that stages declare, each with its hash."""
    for _, out in stage_folders(study):
        done = read_completion(out)
        declared = done.manifest.files if done else {}
        if done is None and (out / COMPLETION_RECORD).exists():
            declared = {COMPLETION_RECORD: "of a record that can be read"}
        for name, sha256 in declared.items():
            yield out / name, sha256


def _describe_damage(path: Path, sha256: str) -> str:
    """What is wrong with a file of this hash, or with a stored volume, which keeps its own."""
    try:
        if not sha256:
            return verify_volume(path)
        return "" if sha256_file(path) == sha256 else f"{path} differs from what was written."
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})."
