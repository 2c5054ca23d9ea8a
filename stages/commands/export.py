"""Export an encoder or a task model to another format, as one file or folder."""

from collections.abc import Callable
from pathlib import Path

from ssl_pipeline import load_encoder, load_model
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.formats import (
    MODEL_FORMATS,
    Format,
    Source,
    load_encoder_format,
    load_model_format,
)
from ssl_pipeline.export.owner_files import README_FILE
from ssl_pipeline.io.atomic import atomic_write, check_writable
from ssl_pipeline.progress import info


def export_to_format(folder: Path, format_name: str, out: Path) -> None:
    """Write the encoder bundle or task model `folder` in a format, whole or not at all.

    Raises UserError where it does not fit the format, a package is missing, or the name of `out`
    does not end as names of the format do.
    """
    if format_name in MODEL_FORMATS:
        _export(folder, load_model, load_model_format(format_name), format_name, out)
    else:
        _export(folder, load_encoder, load_encoder_format(format_name), format_name, out)


def _export(
    folder: Path,
    load: Callable[[Path], Source],
    writer: Format[Source],
    format_name: str,
    out: Path,
) -> None:
    if out.suffix != writer.SUFFIX:
        ending = writer.SUFFIX or "no suffix, for it is a folder"
        raise UserError(f"{out} is no name for {format_name}: let it end in {ending}.")
    check_writable(out)
    loaded = load(folder)
    with atomic_write(out) as temporary:
        what = writer.write(loaded, temporary)
    info(f"{out}: {what}. How scans are prepared for it stands in {folder / README_FILE}.")
