"""Quality control: how many planted defects of a real CT are found, and sound copies accepted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.volumes import geometry, readers
from ssl_pipeline.volumes.config import Data
from ssl_pipeline.volumes.inventory import Scan, build_inventory
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from ssl_pipeline.volumes.quality_control import QualityThresholds
from ssl_pipeline.volumes.readers import Source
from tests.bench.table import BenchmarkRow
from tests.volumes.volume_writers import save_dicom, save_itk, save_nifti

Plant = Callable[[Path, NDArray[Any], NDArray[np.float64]], object]


def rows(scan: Path, folder: Path) -> Iterator[BenchmarkRow]:
    """One row: defects that were rejected or repaired, and sound copies that were accepted."""
    volume = geometry.to_canonical(readers.read_volume(Source(scan)))
    raw, data = folder.resolve() / "defects", volume.data[::3, ::3, ::3].astype(np.int16)
    affine = volume.affine @ np.diag([3.0, 3, 3, 1])
    for name, plant in (SOUND | DEFECTS).items():
        plant(raw / name, data + len(name) % 3, affine)
    root = {"path": str(raw), "modality": "CT"}
    study = Data.model_validate({"roots": [root], "splits": {"duplicate_threshold": None}})
    origins = PseudonymStore(folder / "private", "bench", folder / "out")
    found = build_inventory(study, QualityThresholds(), folder, origins)
    scans: dict[str, list[Scan]] = {}
    for each in found.scans:
        name = Path(origins.origins[each.id].path).relative_to(raw).parts[0]
        scans.setdefault(name, []).append(each)
    missed = [name for name in DEFECTS if not _is_flagged(scans.get(name, []))]
    wrong = [
        name for name in SOUND if [each.quality for each in scans.get(name, [])] != ["accepted"]
    ]
    caught = len(DEFECTS) - len(missed)
    yield BenchmarkRow(
        "planted defects that were rejected or repaired",
        f"{caught} of {len(DEFECTS)}" + (f", missed: {', '.join(missed)}" if missed else ""),
        f"sound copies that were not accepted: {len(wrong)} of {len(SOUND)}",
        caught / len(DEFECTS),
    )


def _is_flagged(scans: list[Scan]) -> bool:
    """Whether something is there of a case, and none of it was simply accepted."""
    return bool(scans) and all(scan.quality != "accepted" for scan in scans)


def _nifti(change: Callable[[NDArray[Any]], NDArray[Any]], *, name: str = "scan.nii.gz") -> Plant:
    return lambda path, data, affine: save_nifti(path / name, change(data), affine)


def _dicom(**tags: Any) -> Plant:
    return lambda path, data, affine: save_dicom(path, data, affine, "CT", **tags)


def _without_slices(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> None:
    for file in save_dicom(path, data, affine, "CT")[20:23]:
        file.unlink()


def _tilted(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> None:
    tilted = affine.copy()
    tilted[:3, 2] += 0.3 * tilted[:3, 1]
    save_dicom(path, data, tilted, "CT")


def _truncated(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> None:
    whole = save_nifti(path / "scan.nii.gz", data + 9, affine)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


def _twice(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """The second one alone is a defect; the first is sound, and in a folder that is not counted."""
    save_nifti(path.with_name("first of the same voxels") / "scan.nii", data + 77, affine)
    save_itk(path / "scan.mha", data + 77, affine)


def _of_size(*steps: float) -> Plant:
    return lambda path, data, affine: save_nifti(
        path / "scan.nii", data, affine @ np.diag([*steps, 1.0])
    )


def _with(data: NDArray[Any], value: float) -> NDArray[np.float32]:
    changed = data.astype(np.float32)
    changed[5, 5, 5] = value
    return changed


SOUND: dict[str, Plant] = {
    "sound nifti": _nifti(lambda data: data + 1),
    "sound dicom": _dicom(),
    "sound nrrd": lambda path, data, affine: save_itk(path / "scan.nrrd", data + 3, affine),
}
DEFECTS: dict[str, Plant] = {
    "constant": _nifti(lambda data: np.full_like(data, 40)),
    "NaN": _nifti(lambda data: _with(data, np.nan)),
    "infinite": _nifti(lambda data: _with(data, np.inf)),
    "saturated": _nifti(lambda data: np.clip(data, -1000, -100)),
    "HU + 1024 of a crop without air": _nifti(lambda data: np.abs(data[20:50, 20:40]) + 900),
    "no scale of HU": _nifti(lambda data: ((data + 1024) / 4096).astype(np.float32)),
    "few slices": _nifti(lambda data: data[:, :, :5]),
    "one slice": _nifti(lambda data: data[:, :, 5]),
    "four axes": _nifti(lambda data: np.stack([data, data], -1)),
    "small field of view": _of_size(0.02, 0.02, 0.02),
    "thick slices": _of_size(1, 1, 4),
    "a mask": _nifti(lambda data: (data > 0).astype(np.uint8)),
    "torn file": _truncated,
    "missing slices": _without_slices,
    "tilted gantry": _tilted,
    "a scout": _dicom(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    "derived": _dicom(ImageType=["DERIVED", "SECONDARY", "MPR"]),
    "another modality": _dicom(Modality="PT"),
    "the same voxels": _twice,
}
