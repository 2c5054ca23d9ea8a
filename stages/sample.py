"""Gather the public scans that a study names into a raw folder as a user's would look.

It is the only stage that needs a network, and so it is never a job: nodes may have none.
"""

from pathlib import Path

from ssl_pipeline.progress import progress
from ssl_pipeline.volumes import outlook
from ssl_pipeline.volumes.samples import FILE_BYTES, gather
from stages.contract import Made, former
from stages.need import RECORDS, Known, Need, Place, assumed, counted, measured
from stages.study import Study

READS = ("sample",)
AFTER: tuple[str, ...] = ()
VERSION = 1
MAKES = ("raw/.gathered/*.txt",)


def inputs(study: Study) -> dict[str, str]:
    """The packages are named in the section itself."""
    return {}


def need(study: Study, known: Known, on: Place) -> Need:
    """What has been gathered; before that, the files that are named, of a size that nobody told."""
    packages = study.sample.packages
    named = sum(len(package.files) for package in packages)
    disk = assumed(named * FILE_BYTES, f"{FILE_BYTES / 1e6:.0f} MB for each that is named")
    files = counted(RECORDS + len(packages) + named, "the files that are named, a pattern as one")
    before = former("sample", study, {})
    if before:
        sizes = before["sizes"].values()
        disk = measured(sum(sizes), "what was gathered")
        files = measured(RECORDS + len(packages) + len(sizes), "what was gathered")
    return Need(
        disk=disk,
        files=files,
        memory=assumed(outlook.BASE_BYTES, "one file at a time"),
        seconds=assumed(5.0 * len(packages), "5 s a package"),
    )


def run(study: Study, out: Path) -> Made:
    """Fetch, check and unpack each package that is not there yet."""
    files = []
    with progress("Gathering scans", total=len(study.sample.packages)) as bar:
        for package in study.sample.packages:
            files += gather(package, out / "raw")
            bar.advance(package.requirement)
    licences = {p.requirement: p.licence for p in study.sample.packages}
    return Made(files, f"{len(files)} files in {out / 'raw'}", {"licences": licences})
