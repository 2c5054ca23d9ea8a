"""Many scans at once: on threads and on Dask workers, with some that fail."""

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.testing import data_path

from cluster.workers import Dask, dask_client
from ssl_pipeline.preprocess.config import Mr, Preprocess
from ssl_pipeline.preprocess.parallel import ScanWithMasks, preprocess_scans
from ssl_pipeline.volumes.inventory import Scan
from ssl_pipeline.volumes.readers import Source


@dataclass(frozen=True)
class SaveArray:
    """Writes what is prepared; can be pickled."""

    folder: Path

    def __call__(self, scan, prepared):
        if scan.id == "unlucky":
            message = "the disk is gone"
            raise RuntimeError(message)
        if scan.id == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        np.save(self.folder / f"{scan.id}.npy", prepared.data)


def scan_of(path, name, **more):
    fields = {
        "id": name,
        "root": "packaged",
        "modality": "MR",
        "targets": {},
        "labels": {},
        "quality": "accepted",
        "format": "NIfTI",
        "shape": nibabel.load(path).shape if path.stat().st_size > 1000 else (9, 9, 9),
    }
    return ScanWithMasks(Scan(**fields | more), Source(path))


@pytest.fixture
def scans(tmp_path):
    source = Path(data_path) / "anatomical.nii"
    broken = tmp_path / "broken.nii"
    broken.write_bytes(source.read_bytes()[:900])
    copies = []
    for number in range(5):
        copies.append(tmp_path / f"copy{number}.nii")
        shutil.copy(source, copies[-1])
    return [
        *(scan_of(path, path.stem) for path in copies),
        scan_of(broken, "broken"),
        scan_of(copies[0], "unlucky"),
        scan_of(copies[0], "pet", modality="PT"),
        scan_of(copies[0], "huge", shape=(4000, 4000, 4000)),
    ]


def check(results, folder):
    by_id = {result.scan_id: result for result in results}
    assert len(by_id) == len(results) == 9
    assert sorted(p.stem for p in folder.glob("*.npy")) == [f"copy{n}" for n in range(5)]
    assert all(by_id[f"copy{n}"].error == "" for n in range(5))
    assert by_id["broken"].error == "cannot be read as NIfTI; is the file complete?"
    assert "CT or MR" in by_id["pet"].error
    assert "max_gib" in by_id["huge"].error
    assert "RuntimeError: the stage's log says where" in by_id["unlucky"].error
    assert by_id["unlucky"].traceback.endswith("RuntimeError")
    assert (
        "in __call__" in by_id["unlucky"].traceback
        and "the disk is gone" not in by_id["unlucky"].traceback
    )
    assert not any(by_id[name].traceback for name in ("broken", "pet", "huge"))


def test_threads(scans, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    section = Preprocess(mr=Mr(spacing_mm=(1.5, 1.5, 1.5)))
    check(list(preprocess_scans(scans, section, SaveArray(out), None, 2)), out)


def test_dask_workers_give_the_same(scans, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    section = Preprocess(mr=Mr(spacing_mm=(1.5, 1.5, 1.5)))
    list(preprocess_scans(scans, section, SaveArray(here), None, 1))
    with dask_client(Dask(workers=2, memory_gib=2.0), len(scans), tmp_path) as (client, workers):
        assert client is not None
        results = list(preprocess_scans(scans, section, SaveArray(there), client, workers))
    check(results, there)
    assert {result.worker for result in results} == {"0", "1"}
    for path in here.glob("*.npy"):
        assert path.read_bytes() == (there / path.name).read_bytes()


def test_who_stops_early_leaves_the_rest(scans, tmp_path):
    results = preprocess_scans(scans[:5] * 20, Preprocess(), SaveArray(tmp_path), None, 1)
    assert next(results).error == ""
    results.close()
    assert len(list(tmp_path.glob("*.npy"))) < 5


def test_a_scan_that_kills_its_workers_is_named_and_the_others_are_done(scans, tmp_path):
    deadly = scan_of(scans[0][1].path, "deadly")
    with dask_client(Dask(workers=2, memory_gib=2.0), 6, tmp_path) as (client, workers):
        todo = [deadly, *scans[:5]]
        results = list(preprocess_scans(todo, Preprocess(), SaveArray(tmp_path), client, workers))
    errors = {result.scan_id: result.error for result in results}
    assert "dask.memory_gib" in errors.pop("deadly")
    assert len(errors) == 5 and not any(errors.values())


def test_labels_that_reach_out_of_the_crop_are_recorded(tmp_path):
    image = nibabel.load(Path(data_path) / "anatomical.nii")
    box, label = (np.zeros(image.shape, np.uint8) for _ in range(2))
    box[:10], label[:20] = 1, 1
    for name, voxels in (("box", box), ("half", label), ("all", box)):
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), tmp_path / f"{name}.nii")
    one = scan_of(Path(data_path) / "anatomical.nii", "one")._replace(
        masks={"foreground": tmp_path / "box.nii"},
        labels={"half": tmp_path / "half.nii", "all": tmp_path / "all.nii"},
    )
    stored = []
    section = Preprocess(margin_voxels=0)
    write = lambda _, prepared: stored.append(prepared.meta.cut_labels)  # noqa: E731
    (result,) = preprocess_scans([one], section, write, None, 1)
    assert result.error == ""
    assert stored == [{"half": 0.5}]
