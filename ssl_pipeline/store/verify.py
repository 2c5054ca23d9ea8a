"""Verification of a stored volume: every byte of its two files is covered by a hash."""

from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import sha256_file
from ssl_pipeline.store.layout import (
    METADATA_FILE,
    VOXEL_FILE,
    document_hash,
    read_attributes,
    read_document,
)


def find_damage(volume: Path) -> str:
    """Empty if the volume is undamaged, else a sentence: which file, and what is wrong."""
    try:
        attributes = read_attributes(volume)
        if document_hash(read_document(volume)) != attributes.document_sha256:
            return f"{volume / METADATA_FILE} differs from what was written."
    except UserError as error:
        return str(error)
    voxels = volume / VOXEL_FILE
    if not voxels.is_file():
        return f"{voxels} is missing."
    if (size := voxels.stat().st_size) != attributes.bytes:
        return f"{voxels} has {size} bytes where {attributes.bytes} were written."
    if sha256_file(voxels) != attributes.sha256:
        return f"{voxels} differs from what was written."
    return ""
