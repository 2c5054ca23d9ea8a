"""Atomic writing of volumes, and a check in microseconds whether one is complete.

zarr-python writes the metadata, so that the layout is the library's own reading of the
specification. The voxels are compressed here, chunk by chunk on one thread: what zarr-python reads
is the same, in a fifth of the time that it takes to write it and half of that of zarrs (0.10, 0.48
and 0.21 s for 12.8 million voxels). The folder is made under a temporary name and renamed.
"""

import os
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import atomic_write, sha256_file, write_json
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.store.layout import (
    ATTRIBUTE_KEY,
    DIMENSIONS,
    EMPTY_CHUNK,
    FORMAT_VERSION,
    INNER_CHUNK,
    METADATA_FILE,
    VOXEL_FILE,
    StoreSettings,
    VolumeAttributes,
    document_hash,
    read_attributes,
    read_document,
)

COMPRESSION_LEVELS = {"lz4": 5, "zstd": 3}


def write_volume(path: Path, prepared: PreparedVolume, settings: StoreSettings, key: str) -> None:
    """Write a volume to the folder `path` in place of an older one; `key` hashes its origin."""
    with atomic_write(path) as temporary:
        _write_document(temporary, prepared.data, settings)
        voxels = temporary / VOXEL_FILE
        _write_voxels(voxels, prepared.data, settings)
        document = read_document(temporary)
        own = {
            "format": FORMAT_VERSION,
            "meta": prepared.meta.to_json(),
            "key": key,
            "bytes": voxels.stat().st_size,
            "sha256": sha256_file(voxels),
        }
        document["attributes"] = {ATTRIBUTE_KEY: own}
        own["document"] = document_hash(document)
        write_json(temporary / METADATA_FILE, document)


def read_complete_attributes(path: Path, key: str) -> VolumeAttributes | None:
    """A volume's attributes, where it has this key and all its bytes; else None.

    `find_damage` checks the content of the bytes as well.
    """
    try:
        attributes = read_attributes(path)
        whole = attributes.bytes == (path / VOXEL_FILE).stat().st_size
    except (UserError, OSError):
        return None
    return attributes if whole and attributes.key == key else None


def _write_document(path: Path, data: NDArray[np.int16], settings: StoreSettings) -> None:
    """Write the array's metadata, without a chunk."""
    import zarr
    from zarr.codecs import BloscCodec

    whole = tuple(-(-n // chunk) * chunk for n, chunk in zip(data.shape, INNER_CHUNK, strict=True))
    packed: dict[str, Any] = {"chunks": data.shape, "compressors": None}
    if settings.codec != "none":
        level = COMPRESSION_LEVELS[settings.codec]
        codec = BloscCodec(cname=settings.codec, clevel=level, shuffle="shuffle", typesize=2)
        packed = {"chunks": INNER_CHUNK, "shards": whole, "compressors": codec}
    zarr.create_array(
        path,
        shape=data.shape,
        dtype=data.dtype,
        fill_value=0,
        dimension_names=DIMENSIONS,
        **packed,
    )


def _write_voxels(path: Path, data: NDArray[np.int16], settings: StoreSettings) -> None:
    """Write the voxel file and sync it: a complete volume survives a power cut."""
    path.parent.mkdir(parents=True)
    with open(path, "wb") as file:
        if settings.codec == "none":
            file.write(np.ascontiguousarray(data, "<i2").data)
        else:
            _write_shard(file, data.astype("<i2", copy=False), settings)
        file.flush()
        os.fsync(file.fileno())


def _write_shard(file: BinaryIO, data: NDArray[np.int16], settings: StoreSettings) -> None:
    """Write inner chunks in order, filled up with 0 beyond the array's end, then the index."""
    from numcodecs import Blosc

    pack = Blosc(settings.codec, COMPRESSION_LEVELS[settings.codec], Blosc.SHUFFLE).encode
    chunk = np.zeros(INNER_CHUNK[1:], "<i2")
    corners = (range(0, n, step) for n, step in zip(data.shape, INNER_CHUNK, strict=True))
    index, offset = [], 0
    for corner in product(*corners):
        part = data[tuple(slice(c, c + n) for c, n in zip(corner, INNER_CHUNK, strict=True))][0]
        if part.shape != chunk.shape:
            chunk[:] = 0
        chunk[tuple(slice(n) for n in part.shape)] = part
        if not chunk.any():
            index.append((EMPTY_CHUNK, EMPTY_CHUNK))
            continue
        packed = pack(chunk)
        file.write(packed)
        index.append((offset, len(packed)))
        offset += len(packed)
    table = np.array(index, "<u8").tobytes()
    file.write(table + crc32c(table).to_bytes(4, "little"))
