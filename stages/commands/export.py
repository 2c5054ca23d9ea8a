"""Export an encoder to another format, as one file or folder: `ssl-pipeline export`."""

from pathlib import Path

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.formats import load_format
from ssl_pipeline.export.owner_files import README_FILE
from ssl_pipeline.io.atomic import atomic_write, check_writable
from ssl_pipeline.progress import info


def export_encoder(encoder: Path, format_name: str, out: Path) -> None:
    """Write the bundle `encoder` in the format `format_name`, whole or not at all.

    Raises UserError where the encoder does not fit the format, a package is missing, or the file's
    name does not end as names of the format do.
    """
    writer = load_format(format_name)
    if out.suffix != writer.SUFFIX:
        ending = writer.SUFFIX or "no suffix, for it is a folder"
        raise UserError(f"{out} is no name for {format_name}: let it end in {ending}.")
    check_writable(out)
    loaded = load_encoder(encoder)
    with atomic_write(out) as temporary:
        what = writer.write(loaded, temporary)
    info(f"{out}: {what}. How scans are prepared for it stands in {encoder / README_FILE}.")
