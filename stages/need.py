"""What a stage will take, figure by figure, each with how it is known.

The words are always the same: what is `counted` follows from the study and its tables; what was
`measured` comes from a former run of this study; what is `assumed` rests on a constant that stands,
with its origin, beside the code that it describes (the `size.py` of each room of the library).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.filesize import decimal

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.size import Size, size
from ssl_pipeline.progress import say
from ssl_pipeline.store.size import (
    AGAINST_LZ4,
    DOCUMENT_BYTES,
    LZ4_BYTES,
    RAW_BYTES,
    volume_bytes,
)
from ssl_pipeline.volumes import outlook
from ssl_pipeline.volumes.inventory import Inventory, Scan
from ssl_pipeline.volumes.listing import total_bytes
from ssl_pipeline.volumes.samples import FILE_BYTES
from stages.study import Study

RECORDS = 4  # small files that every stage leaves: its record, its lock, what its rule declares
UNKNOWN_SCANS = 100  # where nothing says how many there will be


@dataclass(frozen=True)
class Figure:
    """A number and how it is known."""

    value: float
    how: str


def counted(value: float, what: str) -> Figure:
    """A figure that follows from the study and its tables."""
    return Figure(value, f"counted: {what}")


def measured(value: float, where: str) -> Figure:
    """A figure that a former run of the study has shown."""
    return Figure(value, f"measured: {where}")


def assumed(value: float, why: str) -> Figure:
    """A figure that rests on a constant."""
    return Figure(value, f"assumed: {why}")


@dataclass(frozen=True)
class Need:
    """What a stage takes. `seconds` are those of one GPU where it uses one, else of one core."""

    disk: Figure  # bytes
    files: Figure
    memory: Figure  # bytes of one worker: the peak that provenance records
    seconds: Figure
    gpu_memory: Figure | None = None  # bytes of one GPU


@dataclass(frozen=True)
class Place:
    """What a stage gets where it runs."""

    cores: int  # of all processes
    processes: int = 1
    gpus: int = 0


@dataclass(frozen=True)
class Known:
    """What is known of a study's scans, and how."""

    study: Study
    scans: tuple[Scan, ...]
    how: str

    def count(self, value: float, what: str) -> Figure:
        """A figure that follows from the number of scans."""
        return Figure(value, f"{self.how.partition(':')[0]}: {what}")

    @cached_property
    def sizes(self) -> dict[str, Size]:
        """What each scan becomes, by its id."""
        section = self.study.preprocess
        return {
            s.id: size(s.shape, s.spacing_mm, s.orientation, s.modality, section)
            for s in self.scans
        }

    @cached_property
    def stored_bytes(self) -> Figure:
        """Bytes of all volumes, from those that are stored already if there are any."""
        guess = {
            scan.id: volume_bytes(
                self.sizes[scan.id].stored,
                self.sizes[scan.id].distinct,
                scan.modality,
                self.study.store,
            )
            for scan in self.scans
        }
        there = _stored(self.study)
        both = there.keys() & guess.keys()
        if not both:
            return assumed(sum(guess.values()), _rates(self.study))
        real = sum(there[name] + DOCUMENT_BYTES for name in both)
        share = real / sum(guess[name] for name in both)
        return measured(share * sum(guess.values()), f"{len(both)} volumes that are stored")


def _rates(study: Study) -> str:
    share = AGAINST_LZ4.get(study.store.codec)
    if share is None:
        return f"{RAW_BYTES} bytes a stored voxel"
    told = (f"{rate * share:.2g} bytes a voxel of {name}" for name, rate in LZ4_BYTES.items())
    return f"{' and '.join(told)} with {study.store.codec}"


def known(study: Study, headers: bool) -> Known:
    """Scans of the inventory; before it has run, of their headers if asked, else of their bytes."""
    try:
        path = study.folder / "inventory" / "scans.parquet"
        scans = Inventory.read(path).accepted
        if scans:
            return Known(study, scans, f"counted: {len(scans)} in the inventory")
    except (UserError, OSError, pa.ArrowException):
        pass  # not there, or of another version: the stage says what to do
    raw = total_bytes(study.data, study.source_folder)
    if headers and (raw or not study.sample.packages):  # a sample is no mistake before it is there
        try:
            scans = outlook.from_headers(study.data, study.source_folder)
            if scans:
                return Known(study, scans, f"counted: {len(scans)}, by their headers")
        except UserError as error:
            say(f"estimate: {error} Until then typical scans are assumed.", error=True)
    return _typical(study, raw)


def _typical(study: Study, raw: int) -> Known:
    """Scans for so many bytes of raw files; where there are none, for those that are named."""
    named = sum(len(package.files) for package in study.sample.packages)
    if raw:
        count, why = max(1, round(raw / outlook.TYPICAL_BYTES)), f"for {decimal(raw)} of raw files"
    else:
        count = named or UNKNOWN_SCANS
        raw = round(named * FILE_BYTES) or round(count * outlook.TYPICAL_BYTES)
        why = "for none is here yet"
    scans = outlook.typical(study.data, count, raw / count)
    shape = " x ".join(map(str, scans[0].shape))
    return Known(study, scans, f"assumed: {count} of {shape} voxels, {why}")


def _stored(study: Study) -> dict[str, int]:
    """Bytes of each stored volume's voxels, by its id."""
    path: Path = study.folder / "preprocess" / "catalog.parquet"
    try:
        table = pq.read_table(path, columns=["id", "bytes"])
    except (OSError, pa.ArrowException):
        return {}
    return dict(zip(*(table[name].to_pylist() for name in ("id", "bytes")), strict=True))
