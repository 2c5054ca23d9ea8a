"""Reader of MetaImage, in one file (.mha) or with its voxels beside the header (.mhd)."""

from ssl_pipeline.volumes.readers import itk
from ssl_pipeline.volumes.readers.reader import Reader, one_source_per_file, suffix_matcher

SUFFIXES = (".mha", ".mhd")

READER = Reader(
    name="MetaImage",
    suffixes=SUFFIXES,
    can_read=suffix_matcher(*SUFFIXES),
    find_sources=one_source_per_file,
    list_files=itk.image_files,
    read_grid=itk.read_grid,
    read_volume=itk.read_volume,
)
