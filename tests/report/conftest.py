"""Study folders, from empty to whole."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline.evaluation.records import CellCost
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import prepare_volume
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.store.volume_store import VolumeStore
from ssl_pipeline.volumes import readers
from ssl_pipeline.volumes.config import Data
from ssl_pipeline.volumes.inventory import build_inventory
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from ssl_pipeline.volumes.quality_control import QualityThresholds
from tests.report.study_folder import (
    ANATOMY,
    CROPS,
    VOXELS,
    StudyFolder,
    gaps,
    render_page,
    results,
    write_pretraining,
)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """An empty folder."""
    return StudyFolder(tmp_path / "build" / "small")


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real scans with noise of their own, labels, a broken file and a label without image."""
    folder = tmp_path_factory.mktemp("raw")
    image = nib.load(ANATOMY)
    data = np.asarray(image.dataobj, np.float32)
    to_the_right = image.affine[0, 0] * (np.arange(data.shape[0]) - data.shape[0] / 2)
    sides = np.where(to_the_right[:, None, None] < 0, 1, 2)
    sides = np.where(data > data.mean(), sides, 0).astype(np.uint8)
    for name in ("scans", "labels"):
        (folder / name).mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        noisy = (data + rng.normal(0, 50, data.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(noisy, image.affine), folder / "scans" / f"s{index}.nii.gz")
        nib.save(nib.Nifti1Image(sides, image.affine), folder / "labels" / f"s{index}.nii.gz")
    nib.save(nib.Nifti1Image(sides, image.affine), folder / "labels" / "alone.nii.gz")
    (folder / "scans" / "broken.nii.gz").write_bytes(b"no scan at all")
    return folder


def _store_volumes(study: StudyFolder, raw: Path) -> None:
    """Inventory and stored volumes."""
    data = Data.model_validate(
        {
            "roots": [
                {
                    "path": str(raw / "scans"),
                    "name": "clinic",
                    "modality": "MR",
                    "subject": {"pattern": r"(?P<subject>\w+)\.nii\.gz"},
                    "labels": {"sides": {"path": str(raw / "labels")}},
                }
            ],
            "splits": {"duplicate_threshold": None},  # one head, with noise, stands for three
        }
    )
    origins = PseudonymStore(study.folder.parent / "private", "study", Path())
    inventory = build_inventory(data, QualityThresholds(), study.folder, origins)
    inventory.write(study.folder / "inventory" / "scans.parquet")
    section = Preprocess()
    shelf = VolumeStore(study.folder / "preprocess" / "volumes", section, StoreSettings())
    for scan in inventory.accepted_scans:
        volume = readers.read_volume(origins.origins[scan.id].source)
        shelf.put(scan, prepare_volume(volume, scan.modality, section))
    Catalog.build(shelf, inventory.accepted_scans).write(
        study.folder / "preprocess" / "catalog.parquet"
    )
    study.write_json("preprocess/failed.json", {})


@pytest.fixture(scope="session")
def unchanged(tmp_path_factory: pytest.TempPathFactory, raw: Path) -> StudyFolder:
    """A folder in which every stage has run; do not change it."""
    study = StudyFolder(tmp_path_factory.mktemp("unchanged") / "build" / "small")
    _store_volumes(study, raw)
    study.tasks = {"side": CROPS, "voxels": VOXELS}
    better, unsure = gaps((0.1, 0.05, 0.15)), gaps((0.01, -0.05, 0.07), (-0.2, -0.3, -0.1), "knn")
    probe = results(better)
    more = results(unsure, method="knn")
    both = {key: getattr(probe, key) + getattr(more, key) for key in ("rows", "differences")}
    study.write_results("side", "probe", probe.model_copy(update=both))
    tuned = gaps((0.1, 0.05, 0.15), method="full")
    study.write_results("voxels", "finetune", results(tuned, method="full", task=VOXELS))
    cost = CellCost(
        method="linear",
        initialization="pretrained",
        subjects=0,
        seed=0,
        trained_parameters=1234,
        seconds=61.0,
        feature_seconds=3.0,
    )
    study.write_costs("side", "probe", cost)
    write_pretraining(study)
    for stage in ("inventory", "preprocess", "probe/side"):
        study.write_provenance(stage)
    study.write_provenance("pretrain", training_summary={"reason": "It waited for data."})
    study.write_provenance("download", licences={"scans==1.0": "CC0-1.0"})
    return study


@pytest.fixture
def whole(unchanged: StudyFolder, tmp_path: Path) -> StudyFolder:
    """The same in a place of its own."""
    shutil.copytree(unchanged.folder.parent, tmp_path / "build")
    return replace(unchanged, folder=tmp_path / "build" / "small", tasks=dict(unchanged.tasks))


@pytest.fixture(scope="session")
def page(unchanged: StudyFolder) -> str:
    """The HTML report of a study in which every stage has run."""
    return render_page(unchanged)
