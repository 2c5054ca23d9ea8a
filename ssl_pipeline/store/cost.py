"""Cost of storage: bytes of a volume on disk, before it is written."""

from ssl_pipeline.store.layout import StoreSettings

FILES_PER_VOLUME = 2  # zarr.json and one shard
DOCUMENT_BYTES = 2_600  # of zarr.json with its attributes
# Of a voxel that repeats no other, both channels together, as 475 public volumes took: CT fills 12
# of its 16 bits, MR nearly all of them.
LZ4_BYTES_PER_VOXEL = {"CT": 1.5, "MR": 2.2}
SIZE_RELATIVE_TO_LZ4 = {"lz4": 1.0, "zstd": 0.7}  # `none` does not compress
RAW_BYTES_PER_VOXEL = 4  # two channels of int16


def volume_bytes(
    voxels: float, distinct_voxels: float, modality: str, settings: StoreSettings
) -> float:
    """Bytes of a volume of `voxels` voxels, of which `distinct_voxels` repeat no slice."""
    if settings.codec == "none":
        return DOCUMENT_BYTES + RAW_BYTES_PER_VOXEL * voxels
    lz4 = LZ4_BYTES_PER_VOXEL["CT" if modality == "CT" else "MR"]  # preprocessing refuses any other
    return DOCUMENT_BYTES + lz4 * SIZE_RELATIVE_TO_LZ4[settings.codec] * distinct_voxels
