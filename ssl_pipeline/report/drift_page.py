"""The result of `ssl-pipeline drift` as one HTML page: whether an update is due, what to inspect.

It loads nothing and has no script. Scans are named by their codes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_pipeline.io.atomic import write_text
from ssl_pipeline.report.render.templates import template_environment

SHOWN_SCANS = 100  # the others stand in the table beside the page


def write_drift_page(
    path: Path,
    name: str,
    conclusion: str,
    tests: Sequence[Mapping[str, Any]],
    scans: Sequence[Mapping[str, Any]],
) -> None:
    """Write the page of the study `name`; rows of tests and scans by column, the first on top."""
    template = template_environment().get_template("drift.html")
    shown = scans[:SHOWN_SCANS]
    page = template.render(
        name=name,
        conclusion=conclusion,
        tests=tests,
        scans=shown,
        n_left=len(scans) - len(shown),
    )
    write_text(path, page)
