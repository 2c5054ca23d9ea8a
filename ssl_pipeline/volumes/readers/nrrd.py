"""NRRD, in one file (.nrrd) or with its voxels beside the header (.nhdr)."""

from ssl_pipeline.volumes.readers import itk
from ssl_pipeline.volumes.readers.reader import Reader, has_suffix, one_each

SUFFIXES = (".nrrd", ".nhdr")

READER = Reader(
    name="NRRD",
    suffixes=SUFFIXES,
    matches=has_suffix(*SUFFIXES),
    sources=one_each,
    files=itk.companions,
    grid=itk.grid,
    read=itk.read,
)
