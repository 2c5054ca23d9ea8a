"""Files that are no volume, or have wrong headers: each gets one sentence, the rest go on.

FUZZ says how many mutated files of each format are tried (`make test-fuzz` tries 1,000).
"""

import gzip
import os
import re
import resource
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import RLELossless

from ssl_pipeline.volumes.config import Data
from ssl_pipeline.volumes.fingerprint import data_fingerprint
from ssl_pipeline.volumes.inventory import build_inventory
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from ssl_pipeline.volumes.quality_control import QualityThresholds
from ssl_pipeline.volumes.readers import ReadError, Source, find_sources, read_volume
from tests.volumes.volume_writers import save_dicom, save_enhanced, save_itk, save_nifti

FUZZ = int(os.environ.get("FUZZ", "15"))
MEMORY_BYTES = 1 << 29  # more than that above what the process has is asked for by no small file
THRESHOLDS = QualityThresholds(min_axis_voxels=2, min_fov_mm=0)


def inventory_of(folder, quality=THRESHOLDS):
    root = {"path": str(folder), "modality": "MR"}
    data = Data.model_validate({"roots": [root]})
    return build_inventory(data, quality, Path(), pseudonyms_of(folder))


def pseudonyms_of(folder):
    """Beside the folder of scans, or it would be walked too."""
    return PseudonymStore(folder.parent / f"{folder.name}-private", "study", Path())


def check_reason(scan):
    """A quality with one plain sentence: no traceback, no line break, no endless text."""
    assert scan.quality in ("accepted", "repaired", "rejected")
    assert (scan.quality == "rejected") <= bool(scan.reason)
    assert "\n" not in scan.reason and len(scan.reason) < 500
    assert not re.search(r"Traceback|\.py\b|0x[0-9a-f]{6}", scan.reason)


@pytest.fixture
def small(brain):
    return brain.data[:12, :10, :9], brain.affine


@pytest.fixture
def bounded():
    """Within it the process may not have much more memory than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# mutated files


def packed(name):
    """Three slices of a packed file of pydicom's."""

    def write(folder, data, affine):
        folder.mkdir(parents=True)
        file = dcmread(get_testdata_file(name))
        file.Modality, file.PixelSpacing = "MR", [1, 1]
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        for number in range(3):
            file.ImagePositionPatient, file.SOPInstanceUID = [0, 0, number], f"1.2.{number}"
            file.save_as(folder / f"{number}")

    return write


def run_length(folder, data, affine):
    for path in save_dicom(folder, data, affine):
        file = dcmread(path)
        file.compress(RLELossless)
        file.save_as(path)


def file_of(writer, name):
    return lambda folder, data, affine: writer(folder / name, data, affine)


WRITERS = {
    "nii": file_of(save_nifti, "a.nii"),
    "nii.gz": file_of(save_nifti, "a.nii.gz"),
    "nrrd": file_of(save_itk, "a.nrrd"),
    "nhdr": file_of(save_itk, "a.nhdr"),
    "mha": file_of(save_itk, "a.mha"),
    "mhd": file_of(save_itk, "a.mhd"),
    "dicom": save_dicom,
    "enhanced": file_of(save_enhanced, "a.dcm"),
    "rle": run_length,
    "jpeg": packed("JPGExtended.dcm"),
    "jpeg_ls": packed("MR_small_jpeg_ls_lossless.dcm"),
    "jpeg_2000": packed("MR_small_jp2klossless.dcm"),
}


def mutate(content, random):
    """The bytes with a few changed, cut off, replaced, made a huge number, or copied elsewhere."""
    made = bytearray(content)
    end = min(len(made), 1500) if random.random() < 0.7 else len(made)  # mostly the header
    at, other, count = random.integers(end), random.integers(end), random.integers(1, 64)
    match random.integers(5):
        case 0:
            for place in random.integers(end, size=random.integers(1, 8)):
                made[place] = random.integers(256)
        case 1:
            del made[random.integers(len(made)) :]
        case 2:
            made[at : at + count] = random.bytes(random.integers(64))
        case 3:
            made[at : at + 4] = b"\xff\xff\xff\x7f" if random.random() < 0.5 else bytes(4)
        case 4:
            made[at : at + count] = made[other : other + count]
    return bytes(made)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("kind", WRITERS)
def test_mutated_files(kind, small, tmp_path, bounded):
    random = np.random.default_rng(len(kind) * 1000 + FUZZ)
    WRITERS[kind](tmp_path / "whole", *small)
    for number in range(FUZZ):
        folder = tmp_path / "raw" / f"{number:04}"
        shutil.copytree(tmp_path / "whole", folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = files[random.integers(len(files))]
        path.write_bytes(mutate(path.read_bytes(), random))
    WRITERS[kind](tmp_path / "raw" / "0-good", *small)
    inventory = inventory_of(tmp_path / "raw")
    origins = pseudonyms_of(tmp_path / "raw").origins
    good = [scan for scan in inventory.scans if "/0-good" in origins[scan.id].path]
    assert good and all(scan.quality != "rejected" for scan in good)
    for scan in inventory.scans:
        check_reason(scan)


# files that are something else


def test_noise_and_nothing_in_every_format(small, tmp_path):
    random = np.random.default_rng(0)
    suffixes = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
    for suffix in suffixes:
        (tmp_path / f"empty{suffix}").write_bytes(b"")
        (tmp_path / f"noise{suffix}").write_bytes(random.bytes(5000))
    (tmp_path / "magic").write_bytes(bytes(128) + b"DICM" + random.bytes(5000))
    save_nifti(tmp_path / "good.nii", *small)
    inventory = inventory_of(tmp_path)
    assert len(inventory.scans) >= 2 * len(suffixes) + 1
    (accepted,) = inventory.accepted_scans
    assert pseudonyms_of(tmp_path).origins[accepted.id].path == str(tmp_path / "good.nii")
    for scan in inventory.scans:
        check_reason(scan)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_gzip_that_ends_early(share, small, tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", *small)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    save_nifti(tmp_path / "good.nii", *small)
    cut, good = inventory_of(tmp_path).scans
    assert cut.reason.endswith("is the file complete?") or "is it complete" in cut.reason
    assert good.quality == "accepted"


def test_a_gzip_with_a_wrong_sum(small, tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", *small)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(ReadError, match="CRC"):
        read_volume(Source(path))
    (scan,) = inventory_of(tmp_path).scans
    assert scan.reason == "cannot be read as NIfTI; is the file complete?"


def test_bad_files_that_are_read_at_once_crash_nobody(small, tmp_path):
    path = save_itk(tmp_path / "a.nrrd", *small)
    path.write_bytes(path.read_bytes().replace(b"encoding: raw", b"encoding: rag"))

    def message(_):
        try:
            read_volume(Source(path))
        except ReadError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        (sentence,) = set(pool.map(message, range(2000)))
    assert sentence.startswith(f"{path}: cannot be read as NRRD")


# files that claim to be huge


def huge_nifti(folder, data, affine):
    path = save_nifti(folder / "a.nii", data, affine)
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([30000] * 3, "<i2").tobytes()
    path.write_bytes(gzip.compress(content))


def huge_text(name, before, after):
    def write(folder, data, affine):
        path = save_itk(folder / name, data, affine)
        path.write_bytes(path.read_bytes().replace(before, after))

    return write


HUGE = {
    "nifti": huge_nifti,
    "nrrd": huge_text("a.nrrd", b"sizes: 12 10 9", b"sizes: 30000 30000 30000"),
    "mha": huge_text("a.mha", b"DimSize = 12 10 9", b"DimSize = 30000 30000 30000"),
    "dicom": lambda folder, *volume: save_dicom(folder, *volume, Rows=65535, Columns=65535),
    "enhanced": lambda folder, *volume: save_enhanced(
        folder / "a.dcm", *volume, Rows=65535, Columns=65535
    ),
}


@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize("quality", [THRESHOLDS, THRESHOLDS.model_copy(update={"max_gib": 1e9})])
def test_a_huge_claim_is_refused_before_memory_is_asked_for(
    quality, kind, small, tmp_path, bounded
):
    HUGE[kind](tmp_path, *small)
    (scan,) = inventory_of(tmp_path, quality).scans
    check_reason(scan)
    assert scan.quality == "rejected"
    if quality is THRESHOLDS:
        assert "quality.max_gib is 4" in scan.reason


def test_more_packed_zeros_than_the_header_tells_of_are_not_unpacked(small, tmp_path, bounded):
    path = save_nifti(tmp_path / "a.nii", *small)
    with gzip.open(tmp_path / "b.nii.gz", "wb", compresslevel=1) as file:
        file.write(path.read_bytes())
        for _ in range(12):
            file.write(bytes(1 << 26))  # 768 MiB in all
    path.unlink()
    assert inventory_of(tmp_path).scans[0].quality == "accepted"


# files that may not be read, and links


@pytest.fixture
def open_folder():
    """A folder that others may enter, and a process that is nobody in particular."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        before = os.geteuid()
        yield Path(folder), lambda: os.seteuid(65534) if before == 0 else None
        os.seteuid(before)


def test_a_file_that_may_not_be_read_is_reported(small, open_folder):
    folder, become_nobody = open_folder
    save_nifti(folder / "a.nii", *small).chmod(0)
    save_nifti(folder / "b.nii", *small)
    become_nobody()
    locked, good = inventory_of(folder).scans
    assert locked.reason == "may not be read; ask for read access."
    assert good.quality == "accepted"


def test_a_folder_that_may_not_be_listed_is_reported_and_the_others_are_read(small, open_folder):
    folder, become_nobody = open_folder
    save_nifti(folder / "closed" / "a.nii", *small)
    save_nifti(folder / "open" / "b.nii", *small)
    (folder / "closed").chmod(0)
    become_nobody()
    closed, good = inventory_of(folder).scans
    assert closed.reason == "may not be read; ask for read access."
    assert good.quality == "accepted"
    data = Data.model_validate({"roots": [{"path": str(folder)}]})
    assert data_fingerprint(data, folder, folder / ".record") != "absent"


def test_links_in_circles_end(small, tmp_path):
    save_nifti(tmp_path / "a" / "scan.nii", *small)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "c")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    (tmp_path / "self.nii").symlink_to(tmp_path / "self.nii")
    assert len(find_sources(tmp_path)) == 2
    scan, circle = inventory_of(tmp_path).scans
    assert scan.quality == "accepted" and circle.reason.endswith("is a link to nothing.")
    data = Data.model_validate({"roots": [{"path": str(tmp_path)}]})
    assert data_fingerprint(data, tmp_path, tmp_path / ".record") != "absent"
