"""Reader of NRRD, in one file (.nrrd) or with its voxels beside the header (.nhdr).

ITK reads past much that a header says, takes 1 mm where it says no spacing, and crashes over voxels
that are no text though the header says so: these fields are checked here.
"""

import re
from pathlib import Path

from ssl_pipeline.volumes.readers import itk
from ssl_pipeline.volumes.readers.reader import (
    ORIENTATION_NOTE,
    Reader,
    ReadError,
    one_source_per_file,
    suffix_matcher,
)

SUFFIXES = (".nrrd", ".nhdr")
HEADER_BYTES = 1 << 16  # in which a header ends
END = re.compile(rb"\r?\n\r?\n")
FIELD = re.compile(r"(?P<name>[^:#]+):(?P<is_pair>=?)[ \t]*(?P<value>.*)")
TEXT_ENCODINGS = ("txt", "text", "ascii", "hex")
MM_PER_UNIT = {
    **dict.fromkeys(("", "mm", "millimeter", "millimeters", "millimetre"), 1.0),
    **dict.fromkeys(("um", "µm", "micron", "microns", "micrometer"), 0.001),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre"), 1000.0),
}
MODALITY_KEYS = ("modality", "dicom_0008_0060")
SPATIAL_AXES = 3


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a header by their names in lower case, and the byte at which it ends."""
    with open(path, "rb") as file:
        content = file.read(HEADER_BYTES)
    end = END.search(content)
    text = content[: end.start() if end else None].decode("utf-8", errors="replace")
    found = (FIELD.fullmatch(line.rstrip()) for line in text.splitlines())
    fields = {each["name"].strip().lower(): each["value"].strip() for each in found if each}
    return fields, end.end() if end else len(content)


def _header(path: Path, fields: dict[str, str]) -> itk.Header:
    """What a header says that ITK does not read. Raises ReadError for what it may not say."""
    if fields.get("encoding", "").lower() in TEXT_ENCODINGS:
        raise ReadError(path, "has its voxels as text (encoding); write them raw or by gzip.")
    if "old min" in fields or "old max" in fields:
        raise ReadError(path, "was quantised (old min, old max); give it as it was measured.")
    if "time" in fields.get("kinds", "").lower().split()[:SPATIAL_AXES]:
        raise ReadError(path, "has an axis of time (kinds) among its first three; split it.")
    _check_spacing(path, fields)
    modality = next((fields[key].upper() for key in MODALITY_KEYS if fields.get(key)), "")
    space = fields.get("space", "").lower()
    # Others name a scanner's or a mathematical frame.
    is_anatomical = bool(re.match("left-|right-|[lr][ap]s", space))
    return itk.Header(
        mm_per_unit=_mm_per_unit(path, fields),
        modality=modality if modality in ("CT", "MR") else None,
        note="" if is_anatomical else ORIENTATION_NOTE,
        is_lps=is_anatomical,
    )


def _check_spacing(path: Path, fields: dict[str, str]) -> None:
    if directions := fields.get("space directions"):
        axes = re.findall(r"none|\([^)]*\)", directions.lower())
        if sum(axis != "none" for axis in axes) < SPATIAL_AXES:
            raise ReadError(path, itk.NO_SPACING)
        return
    spacings = fields.get("spacings", "").split()[:SPATIAL_AXES]
    if not spacings:
        raise ReadError(path, itk.NO_SPACING)
    try:
        itk.check_spacing(path, [float(word) for word in spacings])
    except ValueError:
        raise ReadError(path, "its header has a spacing that is not a number.") from None


def _mm_per_unit(path: Path, fields: dict[str, str]) -> float:
    stated = fields.get("space units") or fields.get("units") or ""
    words = re.findall(r'"([^"]*)"', stated)[:SPATIAL_AXES] or stated.split()[:SPATIAL_AXES]
    factors = {MM_PER_UNIT.get(word.strip().lower()) for word in words or [""]}
    factor = factors.pop()
    if factors or factor is None:
        raise ReadError(path, "its header says units of length that are unknown or differ.")
    return factor


def _voxel_bytes(path: Path, fields: dict[str, str], header_bytes: int) -> int | None:
    """The bytes of voxels that one file holds; None where they are packed, or in other files."""
    is_whole = not {"data file", "datafile", "byte skip", "line skip"} & fields.keys()
    is_raw = fields.get("encoding", "").lower() == "raw"
    return path.stat().st_size - header_bytes if is_whole and is_raw else None


FORMAT = itk.TextHeaderFormat(_fields, _header, _voxel_bytes)
READER = Reader(
    name="NRRD",
    suffixes=SUFFIXES,
    can_read=suffix_matcher(*SUFFIXES),
    find_sources=one_source_per_file,
    list_files=itk.image_files,
    read_grid=FORMAT.read_grid,
    read_volume=FORMAT.read_volume,
)
