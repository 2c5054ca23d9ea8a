"""Layout of a volume on disk: one Zarr v3 array in two files, which any Zarr library opens.

    ID.zarr/zarr.json        shape, codecs, dimension names, and our attributes
    ID.zarr/c/0/0/0/0        all voxels, one shard

The array is int16 with the axes (channel, z, y, x): channel 0 is intensity, channel 1 holds the
mask bits (1 valid, 2 foreground, 4 anonymised). The shard covers the whole array and holds inner
chunks of (1, 32, 32, 32), compressed one by one, followed by an index: for each inner chunk, in C
order of the chunk grid, its offset and length as little-endian uint64 (both 2**64 - 1 where a chunk
is all zeros and not stored), then a CRC-32C of the index. `codec: none` has one raw chunk instead:
an array that can be mapped into memory.

The attribute `ssl_pipeline` holds the format version, `meta` (VolumeMeta), `key` (the hash of the
scan and of the settings that made the volume), `bytes` and `sha256` of the voxel file, and
`document`, the hash of zarr.json without that entry.

Reasons: a crop touches few chunks, and two files per volume spare the file system of a cluster.
Against 64 and 96 voxels a side, 32 wins at crops of 64 and 96 voxels; against 16, at all; byte
shuffle as good as bit shuffle; lz4 decodes three times as fast as zstd, which takes 0.7 of its
space.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.io.records import parse_object, read_json_if_whole
from ssl_pipeline.preprocess.prepare import VolumeMeta

FORMAT_VERSION = 1
INNER_CHUNK = (1, 32, 32, 32)
DIMENSIONS = ("channel", "z", "y", "x")
METADATA_FILE = "zarr.json"
VOXEL_FILE = "c/0/0/0/0"
ATTRIBUTE_KEY = "ssl_pipeline"
EMPTY_CHUNK = 2**64 - 1  # offset and length of an inner chunk that is all zeros


class StoreSettings(Section):
    """How volumes are compressed."""

    codec: Literal["lz4", "zstd", "none"] = Field(
        default="lz4",
        description="lz4: fast; zstd: 0.7 of its space, a third of its speed; none: raw",
    )


@dataclass(frozen=True)
class VolumeAttributes:
    """The attributes in a volume's zarr.json."""

    meta: VolumeMeta
    key: str
    bytes: int
    sha256: str
    document_sha256: str


def volume_files(scan_id: str) -> tuple[str, str]:
    """The two files of a volume, below the folder of all volumes."""
    return f"{scan_id}.zarr/{METADATA_FILE}", f"{scan_id}.zarr/{VOXEL_FILE}"


def read_document(volume: Path) -> dict[str, Any]:
    """The content of a volume's zarr.json; UserError where there is none that can be read."""
    document = read_json_if_whole(parse_object, volume / METADATA_FILE) or {}
    if not document:
        raise UserError(
            f"{volume / METADATA_FILE} is missing or damaged: delete {volume}, preprocess again."
        )
    return document


def read_attributes(volume: Path) -> VolumeAttributes:
    """A volume's attributes; UserError where they are damaged or of another format version."""
    attributes = read_document(volume).get("attributes")
    own = attributes.get(ATTRIBUTE_KEY) if isinstance(attributes, dict) else None
    found = own.get("format") if isinstance(own, dict) else None
    if not isinstance(own, dict) or found != FORMAT_VERSION:
        raise UserError(
            f"{volume} has store format {found}, this version reads {FORMAT_VERSION}: "
            "delete it and preprocess again."
        )
    try:
        return VolumeAttributes(
            VolumeMeta.from_json(own["meta"]),
            own["key"],
            own["bytes"],
            own["sha256"],
            own["document"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{volume / METADATA_FILE} is damaged: delete {volume} and preprocess again."
        ) from error


def document_hash(document: dict[str, Any]) -> str:
    """Hash of a zarr.json without the entry that keeps this hash."""
    own = {k: v for k, v in document["attributes"][ATTRIBUTE_KEY].items() if k != "document"}
    return sha256_json({**document, "attributes": {**document["attributes"], ATTRIBUTE_KEY: own}})
