"""An encoder in another format, as one file: `ssl-pipeline export`."""

from pathlib import Path

from ssl_pipeline import load_encoder
from ssl_pipeline.atomic import replacing
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.formats import format_of
from ssl_pipeline.progress import say


def export(encoder: Path, form: str, out: Path) -> None:
    """Write the bundle `encoder` as the format `form`, whole or not at all.

    Raises UserError where the encoder does not fit the format, a package is missing, or the file's
    name does not end as names of the format do.
    """
    writer = format_of(form)
    if out.suffix != writer.SUFFIX:
        raise UserError(f"{out} is no name for {form}: let it end in {writer.SUFFIX}.")
    loaded = load_encoder(encoder)
    with replacing(out) as temporary:
        what = writer.write(loaded, temporary)
    say(f"{out}: {what}. How scans are prepared for it stands in {encoder / 'README.md'}.")
