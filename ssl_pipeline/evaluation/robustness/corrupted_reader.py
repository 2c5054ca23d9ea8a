"""Reader of corrupted volumes, in place of the reader of a study.

All evaluation code runs on it unchanged. Of MR also the intensity window is that of the corrupted
scan, for it comes from the scan's own intensities; the foreground mask is that of the clean one.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.corruptions import CorruptionConfig
from ssl_pipeline.evaluation.corruptions.corruption import Image, ScanImage
from ssl_pipeline.evaluation.cost_model import CACHED_VOLUMES
from ssl_pipeline.evaluation.data.crops import StoredVolumes, padded_window
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import FOREGROUND, VALID, VolumeMeta, model_window
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.shard import ALL_CHANNELS
from ssl_pipeline.types import Triple
from ssl_pipeline.views.rng import generator

STORED_LEVELS = 60_000  # of stored values of MR, of 65,536 possible ones
StoredArray = NDArray[np.int16]  # (2, z, y, x)


class CorruptedReader(CropReader):
    """A reader of the same volumes, each corrupted when it is first read."""

    def __init__(
        self, reader: CropReader, corruption: CorruptionConfig, severity: int, seed: int
    ) -> None:
        super().__init__(reader.folder, reader.catalog)
        self.corruption, self.severity, self.seed = corruption, severity, seed
        # A cache of functools would hold the reader, and its volumes, in a cycle.
        self.cache: dict[str, StoredArray] = {}
        self.scale_offsets: dict[str, tuple[float, float]] = {}  # of corrupted volumes

    def read_crop(
        self, scan_id: str, start_zyx: Triple, size_zyx: Triple, channels: slice = ALL_CHANNELS
    ) -> StoredArray:
        """The method of `CropReader`, of the corrupted volume."""
        return padded_window(self.read_volume(scan_id), start_zyx, size_zyx, 0)[channels]

    def read_volume(self, scan_id: str) -> StoredArray:
        """The method of `CropReader`, of the corrupted volume."""
        if scan_id not in self.cache:
            corrupted = self._corrupt(scan_id)
            if len(self.cache) == CACHED_VOLUMES:
                del self.cache[next(iter(self.cache))]
            self.cache[scan_id] = corrupted
        return self.cache[scan_id]

    def _corrupt(self, scan_id: str) -> StoredArray:
        entry, stored = self.catalog.by_id(scan_id), super().read_volume(scan_id)
        meta = entry.meta
        if entry.modality != self.corruption.MODALITY:
            self.scale_offsets[scan_id] = meta.scale, meta.offset
            return stored
        physical = stored[0].astype(np.float32) * np.float32(meta.scale) + np.float32(meta.offset)
        clean = ScanImage(physical, (stored[1] & VALID) > 0, meta.spacing_mm)
        rng = generator(self.seed, self.severity, f"{self.corruption.name} {entry.voxel_hash}")
        corrupted = self.corruption.apply(clean, self.severity, rng)
        scale, offset = self.scale_offsets[scan_id] = _scale_offset(
            entry.modality, corrupted.image, meta
        )
        limits = np.iinfo(np.int16)
        numbers = np.rint((corrupted.image - offset) / scale)
        bits = np.where(corrupted.valid, stored[1], stored[1] & ~np.int16(VALID))
        return np.stack([numbers.clip(limits.min, limits.max).astype(np.int16), bits])


def _scale_offset(modality: str, image: Image, meta: VolumeMeta) -> tuple[float, float]:
    """Scale and offset of stored values: those of HU stay, those of MR fit the new range."""
    if modality == "CT":
        return meta.scale, meta.offset
    low, high = float(image.min()), float(image.max())
    return max((high - low) / STORED_LEVELS, 1e-30), (low + high) / 2


def corrupt_volumes(
    volumes: StoredVolumes,
    corruption: CorruptionConfig,
    severity: int,
    preprocess: Preprocess,
    seed: int,
) -> StoredVolumes:
    """The same volumes, corrupted, with the intensity windows of the corrupted scans."""
    reader = CorruptedReader(volumes.reader, corruption, severity, seed)
    entries = _RewindowedEntries(volumes.entries, reader, preprocess)
    return StoredVolumes(reader, entries)


class _RewindowedEntries(Mapping[str, Entry]):
    """Entries whose intensity windows are computed when they are first read."""

    def __init__(
        self, entries: Mapping[str, Entry], reader: CorruptedReader, preprocess: Preprocess
    ) -> None:
        self.entries, self.reader, self.preprocess = entries, reader, preprocess
        self.cache: dict[str, Entry] = {}

    def __getitem__(self, scan_id: str) -> Entry:
        if scan_id not in self.cache:
            self.cache[scan_id] = self._rewindow(self.entries[scan_id])
        return self.cache[scan_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def _rewindow(self, entry: Entry) -> Entry:
        meta = entry.meta
        if meta.modality == "CT":
            return entry
        image, bits = self.reader.read_volume(entry.id)
        scale, offset = self.reader.scale_offsets[entry.id]
        body = (bits & FOREGROUND) > 0
        found = model_window(image, body, meta.modality, self.preprocess, scale, offset)
        corrupted = replace(
            meta,
            scale=scale,
            offset=offset,
            low=found.low,
            high=found.high,
            centre=found.mean,
            width=found.std,
        )
        return replace(entry, meta_json=json.dumps(corrupted.to_json()))
