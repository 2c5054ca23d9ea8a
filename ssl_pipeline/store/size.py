"""What a stored volume takes on disk, before it is there."""

from ssl_pipeline.store.layout import Store

FILES = 2  # zarr.json and one shard
DOCUMENT_BYTES = 2_600  # of zarr.json with its attributes
# Of a voxel that repeats no other, both channels together, as 475 public volumes took: CT fills 12
# of its 16 bits, MR nearly all of them.
LZ4_BYTES = {"CT": 1.5, "MR": 2.2}
AGAINST_LZ4 = {"lz4": 1.0, "zstd": 0.7}  # `none` packs nothing
RAW_BYTES = 4  # two channels of int16


def volume_bytes(voxels: float, distinct: float, modality: str, store: Store) -> float:
    """Bytes of a volume of `voxels` voxels, of which `distinct` are no repeated slices."""
    if store.codec == "none":
        return DOCUMENT_BYTES + RAW_BYTES * voxels
    lz4 = LZ4_BYTES["CT" if modality == "CT" else "MR"]  # preparing refuses any other
    return DOCUMENT_BYTES + lz4 * AGAINST_LZ4[store.codec] * distinct
