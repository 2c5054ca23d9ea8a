"""Paths of the report and, at a terminal only, of the raw scans behind pseudonyms."""

import re
import sys
from contextlib import suppress

import pyarrow as pa

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes import readers
from ssl_pipeline.volumes.config import resolve_path
from stages.core.layout import report_page
from stages.core.study import Study


def print_location(study: Study, code: str) -> None:
    """Print the report's path, or the origins of a scan or subject. Raises UserError."""
    if code:
        _print_origins(study, code)
        return
    page = report_page(study)
    if not page.exists():
        raise UserError(f"There is no {page} yet: run snakemake, which ends in it.")
    print(page)


def redact(study: Study, text: str) -> str:
    """A text with scan ids for paths of scans, and root names for other paths below roots."""
    with suppress(UserError, pa.ArrowException, OSError):
        text = study.pseudonyms.redact(text)
    for root in study.data.roots:
        for place in (root.path, *(label.path for label in root.labels.values())):
            with suppress(UserError):
                text = re.sub(re.escape(f"{resolve_path(place)}/") + r"[^'\"\n]*", root.title, text)
    return text


def _print_origins(study: Study, code: str) -> None:
    """Print paths and subjects, and why a scan cannot be read."""
    if not sys.stdout.isatty():
        raise UserError(
            "Where a scan came from is printed on a terminal alone, for a file or another program "
            "would keep it: run the command without `>` and `|`."
        )
    found = study.pseudonyms.origins_of(code)
    for name, origin in found.items():
        print(f"{name}  {origin.path}" + (f"  series {origin.series}" if origin.series else ""))
        if origin.subject_name:
            print(f"  subject {origin.subject} is {origin.subject_name}")
        for label, path in origin.labels.items():
            print(f"  label {label}: {path}")
        try:  # a subject may have many scans, which are not all read whole
            (readers.read_volume if len(found) == 1 else readers.read_grid)(origin.source)
        except readers.ReadError as error:
            print(f"  {error}")
