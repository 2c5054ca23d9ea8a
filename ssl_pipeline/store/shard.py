"""ShardReader: boxes of a volume's voxel file, mapped into memory.

The index is parsed once; then a box is the inner chunks that it touches, decoded one by one into a
buffer and copied. zarr-python does the same through a queue of coroutines, ten times slower on one
core. blosc2 decodes the Blosc chunks that Zarr writes, a little faster than numcodecs. It trusts a
chunk's header, though, and a damaged one ends the process: headers are checked here, for 1 us a
chunk. Most chunks of mask bits have one value, in the same few bytes: those are not decoded again.
"""

import mmap
import struct
from itertools import product
from pathlib import Path

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.store.layout import EMPTY_CHUNK, INNER_CHUNK, VOXEL_FILE, read_document
from ssl_pipeline.types import Shape

CHANNEL_COUNT = 2
INTENSITY_CHANNEL, MASK_CHANNEL, ALL_CHANNELS = slice(0, 1), slice(1, 2), slice(0, 2)
CHUNK_SIDE = INNER_CHUNK[1]
CHUNK_BYTES = 2 * CHUNK_SIDE**3
CRC_BYTES = 4
MAX_CONSTANT_BYTES, MAX_CONSTANTS = 512, 64  # packed chunks of one value: size, number
BLOSC_HEADER = struct.Struct("<xxBxiii")  # flags, bytes, bytes of a block, compressed bytes
BLOSC_NOT_COMPRESSED = 2  # flag: no table of blocks follows the header

# index of an inner chunk along an axis, slice of it, slice of the box
ChunkOverlap = tuple[int, slice, slice]


class ShardReader:
    """The voxel file of one volume, open for reading; can be read by several threads at once."""

    def __init__(self, volume: Path) -> None:
        """Open it; UserError where it is missing, damaged, or not in our layout."""
        import blosc2  # not once for each chunk

        self.volume, self._decompress = volume, blosc2.decompress
        document = read_document(volume)
        _, z, y, x = document["shape"]
        self.shape: Shape = (z, y, x)
        raw = document["codecs"][0]["name"] != "sharding_indexed"
        try:
            with open(volume / VOXEL_FILE, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise self._damage_error() from error
        self._raw = self._map_raw() if raw else None
        # (begin, end) in the file of each inner chunk; equal where it is all zeros
        self.chunk_ranges = [] if raw else self._read_index()
        self._constants: dict[bytes, int] = {}  # of packed chunks that have one value

    def read(self, start: Shape, size: Shape, channels: slice = ALL_CHANNELS) -> NDArray[np.int16]:
        """Box (channels, z, y, x) from voxel `start`; zeros where it reaches out of the volume."""
        low = [max(0, s) for s in start]
        high = [min(n, s + e) for n, s, e in zip(self.shape, start, size, strict=True)]
        inside = tuple(b - a for a, b in zip(low, high, strict=True)) == tuple(size)
        out = (np.empty if inside else np.zeros)(
            (len(range(CHANNEL_COUNT)[channels]), *size), np.int16
        )
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return out
        if self._raw is not None:
            target = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
            source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            out[(slice(None), *target)] = self._raw[(channels, *source)]
            return out
        try:
            parts = [_chunk_overlaps(*ends) for ends in zip(low, high, start, strict=True)]
            self._decode(out, parts, range(CHANNEL_COUNT)[channels])
        except (RuntimeError, ValueError, struct.error) as error:
            raise self._damage_error() from error
        return out

    def _decode(
        self, out: NDArray[np.int16], parts: list[list[ChunkOverlap]], channels: range
    ) -> None:
        chunk = np.empty((CHUNK_SIDE, CHUNK_SIDE, CHUNK_SIDE), np.int16)
        ranges, view = self.chunk_ranges, memoryview(self._map)
        _, rows, columns = self._chunk_grid
        per_channel = len(ranges) // CHANNEL_COUNT
        for (iz, from_z, to_z), (iy, from_y, to_y) in product(*parts[:2]):
            line = (iz * rows + iy) * columns
            for ix, from_x, to_x in parts[2]:
                for row, channel in enumerate(channels):
                    begin, end = ranges[channel * per_channel + line + ix]
                    value = 0 if begin == end else self._decode_chunk(view[begin:end], chunk)
                    out[row, to_z, to_y, to_x] = (
                        chunk[from_z, from_y, from_x] if value is None else value
                    )

    def _decode_chunk(self, packed: memoryview, chunk: NDArray[np.int16]) -> int | None:
        """The value of a known constant chunk; else None, with the chunk decoded."""
        few = bytes(packed) if len(packed) <= MAX_CONSTANT_BYTES else b""
        if few in self._constants:
            return self._constants[few]
        _check_header(packed)
        self._decompress(packed, dst=chunk)
        if few and len(self._constants) < MAX_CONSTANTS and (chunk == chunk[0, 0, 0]).all():
            self._constants[few] = int(chunk[0, 0, 0])
        return None

    @property
    def _chunk_grid(self) -> Shape:
        z, y, x = (-(-n // CHUNK_SIDE) for n in self.shape)
        return z, y, x

    def _map_raw(self) -> NDArray[np.int16]:
        shape = (CHANNEL_COUNT, *self.shape)
        if len(self._map) != 2 * int(np.prod(shape)):
            raise self._damage_error()
        return np.frombuffer(self._map, "<i2").reshape(shape)

    def _read_index(self) -> list[tuple[int, int]]:
        count = CHANNEL_COUNT * int(np.prod(self._chunk_grid))
        begin = len(self._map) - CRC_BYTES - 16 * count
        if begin < 0:
            raise self._damage_error()
        index = self._map[begin : len(self._map) - CRC_BYTES]
        if crc32c(index) != int.from_bytes(self._map[-CRC_BYTES:], "little"):
            raise self._damage_error()
        table: list[list[int]] = np.frombuffer(index, "<u8").reshape(count, 2).tolist()
        return [(0, 0) if o == EMPTY_CHUNK else (o, o + n) for o, n in table]

    def _damage_error(self) -> UserError:
        return UserError(
            f"{self.volume / VOXEL_FILE} is missing or damaged: delete {self.volume},"
            " preprocess again."
        )


def _chunk_overlaps(low: int, high: int, start: int) -> list[ChunkOverlap]:
    """The inner chunks that voxels low to high of an axis lie in."""
    parts = []
    for index in range(low // CHUNK_SIDE, (high - 1) // CHUNK_SIDE + 1):
        first, last = max(low, index * CHUNK_SIDE), min(high, (index + 1) * CHUNK_SIDE)
        source = slice(first - index * CHUNK_SIDE, last - index * CHUNK_SIDE)
        parts.append((index, source, slice(first - start, last - start)))
    return parts


def _check_header(chunk: memoryview) -> None:
    """Raise ValueError or struct.error where a Blosc chunk would be decoded beyond its ends."""
    flags, size, block, compressed = BLOSC_HEADER.unpack_from(chunk)
    if size != CHUNK_BYTES or compressed != len(chunk) or block <= 0:
        raise ValueError("not the header of an inner chunk")
    if not flags & BLOSC_NOT_COMPRESSED:
        starts = struct.unpack_from(f"<{-(-size // block)}i", chunk, BLOSC_HEADER.size)
        if min(starts) < BLOSC_HEADER.size or max(starts) >= compressed:
            raise ValueError("blocks outside of an inner chunk")


def disable_blosc_threads() -> None:
    """Let blosc2 decode on the calling thread alone.

    Its threads gain nothing on chunks of 64 KiB, and a process that is forked inherits a pool
    without threads, which would wait for ever.
    """
    import blosc2

    blosc2.set_nthreads(1)
