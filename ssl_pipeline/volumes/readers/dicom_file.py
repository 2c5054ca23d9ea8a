"""Opening of DICOM files, also of those that lack preamble, file meta or transfer syntax.

Older scanners, planning systems and anonymisers write the bare data set. pydicom reads it when
forced to, but would be forced to read anything; so a bare file counts as DICOM where its first
elements are those of an image.
"""

from pathlib import Path
from typing import Any

import pydicom
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

PREAMBLE_BYTES = 128
DICOM_UID_PREFIX = "1.2.840.10008."
FIRST_GROUPS = (0x0002, 0x0008, 0x0010, 0x0018, 0x0020, 0x0028)  # of a bare file's first element
LAST_TAG = Tag("Columns")  # what tells an image stands before it


def is_dicom(path: Path) -> bool:
    """Whether a file holds DICOM by its content. Raises OSError where it cannot be opened."""
    with open(path, "rb") as file:
        start = file.read(PREAMBLE_BYTES + 4)
    if start[PREAMBLE_BYTES:] == b"DICM":
        return True
    groups = (int.from_bytes(start[:2], "little"), int.from_bytes(start[:2], "big"))
    return any(group in FIRST_GROUPS for group in groups) and _is_bare_dicom(path)


def read_file(path: Path, **options: Any) -> pydicom.FileDataset:
    """Read a file with `pydicom.dcmread`'s options; a missing transfer syntax is filled in.

    Raises whatever pydicom raises, also for a file that is no DICOM.
    """
    file = pydicom.dcmread(path, force=is_dicom(path), **options)
    if "TransferSyntaxUID" not in file.file_meta:
        is_implicit, is_little_endian = file.original_encoding
        explicit = ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
        file.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    return file


def _is_bare_dicom(path: Path) -> bool:
    """Whether a file without preamble begins with ascending elements that say class or size."""
    last = Tag(0)

    def is_past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal last
        is_out_of_order, last = tag <= last, tag
        return bool(is_out_of_order or tag > LAST_TAG)

    names = ("SOPClassUID", "Rows", "Columns")
    try:
        with open(path, "rb") as file:
            found = read_partial(file, is_past, force=True, specific_tags=[*map(Tag, names)])
        if str(found.get("SOPClassUID") or "").startswith(DICOM_UID_PREFIX):
            return True
        return bool(found.get("Rows") and found.get("Columns"))
    except Exception:  # pydicom raises whatever a garbled byte leads to
        return False
