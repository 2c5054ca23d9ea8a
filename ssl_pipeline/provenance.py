"""Provenance of a result: inputs, config hash, versions, commit, time, memory, seed.

A record is started before the work, finished after it, and written beside the result. It holds
what differs from run to run; what must be equal for equal results is in the stage's manifest.
"""

import platform
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from ssl_pipeline.io.records import Record, read_record

PROVENANCE_FILE = "provenance.json"
PACKAGES = ("torch", "timm", "lightly", "zarr", "dask", "numpy", "scipy", "scikit-learn", "nibabel")


def git_commit(folder: Path) -> str:
    """The commit of a checkout, with `+changes` where files differ from it; empty outside one.

    Where git refuses to say, as in a clone of another user, its reason.
    """
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return ""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        return f"not known, {said.strip().splitlines()[0]}"
    return head + ("+changes" if dirty else "")


def _git(folder: Path, *arguments: str) -> str:
    """What git prints. Raises OSError where there is no git, CalledProcessError where it fails."""
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on, where installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_memory_gib() -> float:
    """Largest resident memory of this process or of a finished child of it, in GiB."""
    largest_kib = max(_own_peak_kib(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    return round(largest_kib / 2**20, 3)


def _own_peak_kib() -> int:
    """Of this program alone: `ru_maxrss` would be that of its parent process, if larger."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class ProvenanceRecord(Record):
    """The provenance of a stage's outputs, with what the stage adds of its own."""

    model_config = ConfigDict(extra="allow")

    format: Literal[1] = 1
    stage: str
    inputs: dict[str, str]
    config_hash: str
    seed: int
    versions: dict[str, str]
    git_commit: str
    command: str
    host: str
    started_at: str  # the first time, UTC, ISO 8601
    wall_s: float  # of all starts
    peak_memory_gib: float
    licences: dict[str, str] = Field(default_factory=dict)  # by sample package
    training_summary: dict[str, Any] = Field(default_factory=dict)  # of pretraining


def read_provenance(path: Path) -> ProvenanceRecord:
    """The provenance in a file."""
    return read_record(ProvenanceRecord, path, "run its stage again")


@dataclass
class Provenance:
    """A provenance record in progress; `finish` returns it."""

    stage: str
    inputs: dict[str, str]
    config_hash: str
    seed: int
    repository: Path
    start_time: float = field(default_factory=time.time)
    first_start: float | None = None  # of the same work, where it was stopped and goes on
    earlier_s: float = 0.0  # that earlier starts of it took

    def finish(self, **extra: Any) -> ProvenanceRecord:
        """The record. `extra` is what a stage adds (steps, precision)."""
        started = datetime.fromtimestamp(self.first_start or self.start_time, UTC)
        return ProvenanceRecord(
            stage=self.stage,
            inputs=self.inputs,
            config_hash=self.config_hash,
            seed=self.seed,
            versions=package_versions(),
            git_commit=git_commit(self.repository),
            command=" ".join(sys.argv),
            host=platform.node(),
            started_at=started.isoformat(timespec="seconds"),
            wall_s=round(self.earlier_s + time.time() - self.start_time, 2),
            peak_memory_gib=peak_memory_gib(),
            **extra,
        )
