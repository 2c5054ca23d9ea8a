"""Where things are: the report, and, at a terminal alone, where a scan came from."""

import sys

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes import readers
from stages.study import Study


def show(study: Study, code: str) -> None:
    """Print the report's path, or the origins of a scan or subject. Raises UserError."""
    if code:
        _show_origins(study, code)
        return
    page = study.folder / "report" / "report.html"
    if not page.exists():
        raise UserError(f"There is no {page} yet: run snakemake, which ends in it.")
    print(page)


def _show_origins(study: Study, code: str) -> None:
    """Paths, persons, and why a scan cannot be read in the words of the library that tried."""
    if not sys.stdout.isatty():
        raise UserError("Where a scan came from is printed on a terminal alone, not into a file.")
    for name, origin in study.origins.of(code).items():
        print(f"{name}  {origin.path}" + (f"  series {origin.series}" if origin.series else ""))
        if origin.person:
            print(f"  subject {origin.subject} is {origin.person}")
        for label, path in origin.labels.items():
            print(f"  label {label}: {path}")
        try:
            readers.read(origin.source)
        except readers.ReadError as error:
            print(f"  {error}")
