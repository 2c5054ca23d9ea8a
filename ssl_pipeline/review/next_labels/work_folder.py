"""The private folder of scans to label, as annotation tools open it.

    CODE.nii.gz          a scan: a link to its own file, or a copy if that is no single NIfTI file
    labels/final/        finished labels, each named as its scan
    origins.csv          the file of each scan
    readers.csv          the short code of the reader who labels each scan

It is the layout of MONAI Label's local datastore; 3D Slicer opens its files as they are. Nothing
here ever removes a label, and a scan with a finished label stays. Whose label one is stands in
`readers.csv` alone: a file's owner is an account, and what tools write differs.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import write_bytes, write_csv
from ssl_pipeline.io.permissions import private_files
from ssl_pipeline.io.text import read_text
from ssl_pipeline.review.log_entry import READER_PATTERN
from ssl_pipeline.volumes.pseudonyms import CODE_DIGITS, Origin
from ssl_pipeline.volumes.readers import ReadError, read_volume, strip_suffix

ORIGINS_FILE, READERS_FILE = "origins.csv", "readers.csv"
FINISHED_LABELS = Path("labels/final")
NIFTI_SUFFIXES = (".nii.gz", ".nii")
READER_COLUMNS = ("scan", "reader")
_SCAN_NAME = re.compile(rf"[0-9a-f]{{{CODE_DIGITS}}}\.nii(\.gz)?")


def finished_labels(folder: Path) -> list[Path]:
    """The finished labels, each named by the code of its scan."""
    files = (folder / FINISHED_LABELS).glob("*.*")
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def labelled_scans(folder: Path) -> frozenset[str]:
    """The codes of the scans that have a finished label."""
    return frozenset(strip_suffix(path.name) for path in finished_labels(folder))


def read_readers(folder: Path) -> dict[str, str]:
    """The short code of each scan's reader, by the scan's code.

    Raises UserError for a table that is not one of scans and readers.
    """
    path = folder / READERS_FILE
    if not path.exists():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(path)))
    if set(rows.fieldnames or ()) != set(READER_COLUMNS):
        raise UserError(
            f"{path} does not begin with the line {','.join(READER_COLUMNS)}: write it first."
        )
    readers = {row["scan"]: row["reader"] for row in rows}
    for scan, reader in readers.items():
        if not re.fullmatch(READER_PATTERN, reader or ""):
            raise UserError(
                f"{path} has {reader!r} for scan {scan}: write the reader's short code, of letters,"
                " digits, `-` or `_`."
            )
    return readers


def assign_reader(folder: Path, scans: Iterable[str], reader: str) -> None:
    """Write down that this reader labels these scans."""
    readers = read_readers(folder) | dict.fromkeys(scans, reader)
    rows = ({"scan": scan, "reader": readers[scan]} for scan in sorted(readers))
    with private_files():
        write_csv(folder / READERS_FILE, READER_COLUMNS, rows)


def scan_files(folder: Path) -> list[Path]:
    """The links and copies of scans, and the table of their files."""
    names = (path for path in folder.glob("*.nii*") if _SCAN_NAME.fullmatch(path.name))
    return [*names, *folder.glob(ORIGINS_FILE)]


def write_work_folder(folder: Path, origins: Sequence[Origin]) -> None:
    """Write the folder for these scans; others that have no finished label leave it.

    Raises UserError for a scan that cannot be read any more.
    """
    with private_files():
        (folder / FINISHED_LABELS).mkdir(parents=True, exist_ok=True)
        _write_table(folder / ORIGINS_FILE, origins)
        stay = labelled_scans(folder) | {origin.id for origin in origins}
        for path in scan_files(folder):
            if path.name != ORIGINS_FILE and strip_suffix(path.name) not in stay:
                path.unlink()
        for origin in origins:
            _place_scan(folder, origin)


def _place_scan(folder: Path, origin: Origin) -> None:
    """Link a NIfTI file, or write the voxels of another format as NIfTI."""
    path = Path(origin.path)
    suffix = next((end for end in NIFTI_SUFFIXES if path.name.lower().endswith(end)), "")
    place = folder / f"{origin.id}{suffix or NIFTI_SUFFIXES[0]}"
    if suffix:
        place.unlink(missing_ok=True)
        place.symlink_to(path.absolute())
    elif not place.exists():
        try:
            volume = read_volume(origin.source)
        except ReadError as error:
            raise UserError(f"Scan {origin.id} {error.reason}") from None
        image = nib.Nifti1Image(np.asarray(volume.data), volume.affine)
        write_bytes(place, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))


def _write_table(path: Path, origins: Iterable[Origin]) -> None:
    rows = ({"scan": each.id, "path": each.path, "series": each.series} for each in origins)
    write_csv(path, ("scan", "path", "series"), rows)
