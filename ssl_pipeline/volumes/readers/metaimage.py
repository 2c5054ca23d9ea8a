"""MetaImage, in one file (.mha) or with its voxels beside the header (.mhd)."""

from ssl_pipeline.volumes.readers import itk
from ssl_pipeline.volumes.readers.reader import Reader, has_suffix, one_each

SUFFIXES = (".mha", ".mhd")

READER = Reader(
    name="MetaImage",
    suffixes=SUFFIXES,
    matches=has_suffix(*SUFFIXES),
    sources=one_each,
    files=itk.companions,
    grid=itk.grid,
    read=itk.read,
)
