"""Resource estimates of stages: quantities, each with the basis that it rests on.

The words are always the same: what is `counted` follows from the study and its tables; what was
`measured` comes from an earlier run of this study; what is `assumed` rests on a constant that
stands, with its origin, beside the code that it describes (`cost.py` of each package).
"""

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_bytes
from ssl_pipeline.preprocess.cost import VoxelCounts, voxel_counts
from ssl_pipeline.progress import info
from ssl_pipeline.store.cost import (
    DOCUMENT_BYTES,
    LZ4_BYTES_PER_VOXEL,
    RAW_BYTES_PER_VOXEL,
    SIZE_RELATIVE_TO_LZ4,
    volume_bytes,
)
from ssl_pipeline.volumes import dataset_estimate
from ssl_pipeline.volumes.download import TYPICAL_FILE_BYTES
from ssl_pipeline.volumes.fingerprint import total_bytes
from ssl_pipeline.volumes.inventory import Inventory, Scan
from stages.core import layout
from stages.core.planning import plan_from_scans
from stages.core.study import Study

RECORD_FILE_COUNT = 5  # small files of every stage: record, lock, time, what its rule declares
DEFAULT_SCAN_COUNT = 100  # where nothing says how many there will be


@dataclass(frozen=True)
class Quantity:
    """A number and how it is known."""

    value: float
    basis: str


def counted(value: float, basis: str) -> Quantity:
    """A quantity that follows from the study and its tables."""
    return Quantity(value, f"counted: {basis}")


def measured(value: float, source: str) -> Quantity:
    """A quantity that an earlier run of the study has shown."""
    return Quantity(value, f"measured: {source}")


def assumed(value: float, assumption: str) -> Quantity:
    """A quantity that rests on a constant."""
    return Quantity(value, f"assumed: {assumption}")


@dataclass(frozen=True)
class ResourceEstimate:
    """What a stage needs. `seconds` are those of one GPU where it uses one, else of one core."""

    disk: Quantity  # bytes
    files: Quantity
    memory: Quantity  # bytes of one worker: the peak that provenance records
    seconds: Quantity
    gpu_memory: Quantity | None = None  # bytes of one GPU


@dataclass(frozen=True)
class Hardware:
    """What a stage gets where it runs."""

    cores: int  # of all processes
    processes: int = 1
    gpus: int = 0


@dataclass(frozen=True)
class DatasetSize:
    """Shapes of a study's scans, as far as they are known, and their basis."""

    study: Study
    scans: tuple[Scan, ...]
    basis: str

    @property
    def is_known(self) -> bool:
        """Whether these are the study's own scans, and not assumed ones."""
        return self.basis.startswith("counted")

    def quantity_from_scans(self, value: float, basis: str) -> Quantity:
        """A quantity that follows from the number of scans."""
        return Quantity(value, f"{self.basis.partition(':')[0]}: {basis}")

    @cached_property
    def sizes(self) -> dict[str, VoxelCounts]:
        """Voxel counts of each scan after preprocessing, by its id."""
        section = plan_from_scans(self.study, self.scans).preprocess
        return {
            s.id: voxel_counts(
                s.shape, s.spacing_mm, s.orientation, s.modality, section.for_roots([s.root])
            )
            for s in self.scans
        }

    @cached_property
    def stored_bytes(self) -> Quantity:
        """Bytes of all volumes, from those that are stored already if there are any."""
        guess = {
            scan.id: volume_bytes(
                self.sizes[scan.id].stored_voxels,
                self.sizes[scan.id].distinct_voxels,
                scan.modality,
                self.study.store,
            )
            for scan in self.scans
        }
        there = _stored_bytes(self.study)
        both = there.keys() & guess.keys()
        if not both:
            return assumed(sum(guess.values()), _codec_rates(self.study))
        real = sum(there[name] + DOCUMENT_BYTES for name in both)
        share = real / sum(guess[name] for name in both)
        return measured(share * sum(guess.values()), f"{len(both)} volumes that are stored")


def _codec_rates(study: Study) -> str:
    share = SIZE_RELATIVE_TO_LZ4.get(study.store.codec)
    if share is None:
        return f"{RAW_BYTES_PER_VOXEL} bytes a stored voxel"
    rates = (
        f"{rate * share:.2g} bytes a voxel of {name}" for name, rate in LZ4_BYTES_PER_VOXEL.items()
    )
    return f"{' and '.join(rates)} with {study.store.codec}"


def dataset_size(study: Study) -> DatasetSize:
    """Scans of the inventory; before it has run, those of some headers, or as bytes suggest."""
    try:
        scans = Inventory.read(layout.inventory_table(study)).accepted_scans
        if scans:
            return DatasetSize(study, scans, f"counted: {len(scans)} in the inventory")
    except (UserError, OSError, pa.ArrowException):
        pass  # not there, or of another version: the stage says what to do
    raw = 0
    try:
        raw = raw_bytes(study)
        # Scans that are yet to be downloaded are no mistake.
        if raw or not study.download.packages:
            scans = dataset_estimate.scans_from_headers(study.data, study.source_folder)
            if scans:
                return DatasetSize(study, scans, f"counted: {len(scans)}, by their headers")
    except UserError as error:
        info(f"estimate: {error} Until then typical scans are assumed.", error=True)
    return _typical_dataset(study, raw)


def raw_bytes(study: Study) -> int:
    """Bytes of a study's raw files; 0 where they are not there yet.

    Raises UserError for a table that cannot be used, unless it may name files that are still to be
    downloaded.
    """
    try:
        return total_bytes(study.data, study.source_folder)
    except UserError:
        if study.download.packages:
            return 0
        raise


def _typical_dataset(study: Study, raw_bytes: int) -> DatasetSize:
    """Scans for so many bytes of raw files; where there are none, for those that are named."""
    named = sum(len(package.files) for package in study.download.packages)
    if raw_bytes:
        count, why = (
            max(1, round(raw_bytes / dataset_estimate.TYPICAL_BYTES)),
            f"for {format_bytes(raw_bytes)} of raw files",
        )
    else:
        count = named or DEFAULT_SCAN_COUNT
        raw_bytes = round(named * TYPICAL_FILE_BYTES) or round(
            count * dataset_estimate.TYPICAL_BYTES
        )
        why = "for none is here yet"
    scans = dataset_estimate.typical_scans(study.data, count, raw_bytes / count)
    shape = " x ".join(map(str, scans[0].shape))
    return DatasetSize(study, scans, f"assumed: {count} of {shape} voxels, {why}")


def _stored_bytes(study: Study) -> dict[str, int]:
    """Bytes of each stored volume's voxels, by its id."""
    try:
        table = pq.read_table(layout.catalog_table(study), columns=["id", "bytes"])
    except (OSError, pa.ArrowException):
        return {}
    return dict(zip(*(table[name].to_pylist() for name in ("id", "bytes")), strict=True))
