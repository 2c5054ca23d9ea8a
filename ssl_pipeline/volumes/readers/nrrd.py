"""Reader of NRRD, in one file (.nrrd) or with its voxels beside the header (.nhdr)."""

from ssl_pipeline.volumes.readers import itk
from ssl_pipeline.volumes.readers.reader import Reader, one_source_per_file, suffix_matcher

SUFFIXES = (".nrrd", ".nhdr")

READER = Reader(
    name="NRRD",
    suffixes=SUFFIXES,
    can_read=suffix_matcher(*SUFFIXES),
    find_sources=one_source_per_file,
    list_files=itk.image_files,
    read_grid=itk.read_grid,
    read_volume=itk.read_volume,
)
