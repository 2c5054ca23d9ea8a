"""Files of a bundle: its manifest's format, what must be there, and hashes that detect damage."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import sha256_file


def check_format(path: Path, content: Mapping[str, Any], version: int, command: str) -> None:
    """Raise UserError where a manifest has another format than `version`.

    `command` is what writes it again, as `run ... again`.
    """
    found = content.get("format_version")
    if found == version:
        return
    newer = isinstance(found, int) and found > version
    remedy = "use a newer ssl-pipeline" if newer else f"run {command} again, which writes it again"
    raise UserError(f"{path} has format {found}, this version reads {version}: {remedy}.")


def check_files_exist(folder: Path, names: Iterable[str], command: str) -> None:
    """Raise UserError where a bundle lacks one of these files."""
    for name in names:
        if not (folder / name).exists():
            raise UserError(
                f"{folder} lacks {name}: copy the whole bundle, or run {command} again, "
                "which writes it again."
            )


def check_hashes(folder: Path, sha256: Mapping[str, str], manifest: str, command: str) -> None:
    """Raise UserError where a file differs from what was written, by the hashes of `manifest`."""
    for name, expected in sha256.items():
        if sha256_file(folder / name) != expected:
            raise UserError(
                f"{folder / name} is damaged, for its SHA-256 is not the one in {manifest}: "
                "copy the bundle again from its source, or remove the file and run "
                f"{command} again."
            )
