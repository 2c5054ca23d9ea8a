"""CropReader: random crops of stored volumes, at the speed of decoding them.

Volumes are opened on first use, in the process that uses them: a reader can be made in the parent
and go to data-loading workers by fork or by spawn. The least recently used maps are closed, because
each holds a file open.
"""

import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.shard import ALL_CHANNELS, ShardReader, disable_blosc_threads
from ssl_pipeline.types import Shape

MAX_OPEN_MAPS = 256


class CropReader:
    """Reads boxes of the volumes of a catalog; `folder` holds ID.zarr."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self.folder, self.catalog = folder, catalog
        self._reset()

    def read_crop(
        self, scan_id: str, start_zyx: Shape, size_zyx: Shape, channels: slice = ALL_CHANNELS
    ) -> NDArray[np.int16]:
        """Intensity and mask bits (2, z, y, x) of a box; both 0 where it reaches out of the volume.

        `start_zyx` may be negative; `channels` (INTENSITY_CHANNEL, MASK_CHANNEL) reads one. Raises
        UserError for an unknown or a damaged volume.
        """
        return self._open(scan_id).read(start_zyx, size_zyx, channels)

    def read_volume(self, scan_id: str) -> NDArray[np.int16]:
        """A whole volume (2, z, y, x)."""
        shard = self._open(scan_id)
        return shard.read((0, 0, 0), shard.shape)

    @property
    def open_volumes(self) -> tuple[str, ...]:
        """The volumes that are open in this process, the least recently used first."""
        return tuple(self._shards)

    def _open(self, scan_id: str) -> ShardReader:
        if os.getpid() != self._process:
            self._reset()
        with self._lock:
            shard = self._shards.get(scan_id)
            if shard is None:
                shard = self._shards[scan_id] = self._open_checked(scan_id)
                if len(self._shards) > MAX_OPEN_MAPS:
                    self._shards.popitem(last=False)
            self._shards.move_to_end(scan_id)
            return shard

    def _open_checked(self, scan_id: str) -> ShardReader:
        entry = self.catalog.by_id(scan_id)
        shard = ShardReader(self.folder / f"{scan_id}.zarr")
        if shard.shape != entry.shape:
            raise UserError(
                f"{shard.volume} has {shard.shape} voxels, the catalog says {entry.shape}: "
                "preprocess again."
            )
        return shard

    def _reset(self) -> None:
        """Start with no open volume, and a lock that no other thread holds."""
        disable_blosc_threads()
        self._process, self._lock = os.getpid(), Lock()
        self._shards: OrderedDict[str, ShardReader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "catalog": self.catalog}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder, self.catalog = state["folder"], state["catalog"]
        self._reset()
