"""Small studies with known labels, prepared and stored as real ones are.

Each scan is a real MR volume with noise of its own and two blobs at random positions:
a bright one (label value 3) and a dark one (5). Scans of class 1 also have a bright corner.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from ssl_pipeline.evaluation.cells import PIXELS, RANDOM
from ssl_pipeline.evaluation.config import Evaluate, Probe
from ssl_pipeline.evaluation.data.crops import StoredVolumes
from ssl_pipeline.evaluation.probes import Knn, Linear
from ssl_pipeline.evaluation.runner.context import EvaluationContext
from ssl_pipeline.models import ViT
from ssl_pipeline.models.encoder import Encoder, random_encoder
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import prepare_volume
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.volume_store import VolumeStore
from ssl_pipeline.volumes.inventory import Scan
from ssl_pipeline.volumes.readers import Source, read_volume
from ssl_pipeline.volumes.volume import Volume

BRIGHT, DARK = 3, 5
ANATOMY = Path(nib.__file__).parent / "tests" / "data" / "anatomical.nii"

# Where the choice of the strength does not matter, it is made fast.
QUICK_LINEAR = Linear(c_values=(0.01, 0.1, 1.0), fold_draws=1)
QUICK_PROBE = Probe(methods=(Knn(), QUICK_LINEAR))


@dataclass(frozen=True)
class StoredStudy:
    """A stored study."""

    catalog: Catalog
    reader: CropReader
    folder: Path

    def label_file(self, scan: str, name: str) -> Path:
        """The file of a scan's label."""
        return label_link_path(self.folder, scan, name)

    @property
    def volumes(self) -> StoredVolumes:
        """The stored volumes with their entries."""
        return StoredVolumes(self.reader, {entry.id: entry for entry in self.catalog.entries})

    def where(self, wanted: Callable[[Entry], bool]) -> "StoredStudy":
        """The study of some of the volumes."""
        entries = tuple(entry for entry in self.catalog.entries if wanted(entry))
        return replace(self, catalog=Catalog(entries))

    def context(self, out: Path, **changes: Any) -> EvaluationContext:
        """An evaluation context with tiny encoders and few draws."""
        defaults = {
            "catalog": self.catalog,
            "reader": self.reader,
            "label_file": self.label_file,
            "evaluate": Evaluate(subjects=(2, 0)),
            "baseline_probe": QUICK_LINEAR,
            "encoder_factory": build_test_encoder,
            "initializations": {"pretrained": "of a test", RANDOM: "of all tests", PIXELS: ""},
            "crop_voxels": (16, 16, 16),
            "out": out,
            "label_map_folder": out / "labels",
        }
        return EvaluationContext(**(defaults | changes))


def label_link_path(folder: Path, scan: str, name: str) -> Path:
    """Where a stored study has a link to a label file."""
    return folder / "labels" / f"{scan}-{name}.nii.gz"


def build_test_encoder(initialization: str, seed: int) -> Encoder:
    """A random encoder; the "pretrained" one is the same for every seed."""
    return random_encoder(ViT(preset="tiny"), 1000 if initialization == "pretrained" else seed)


def store_scan(
    folder: Path,
    *,
    subject: str,
    split: str,
    volume: Volume,
    labels: Mapping[str, str] | None = None,
    targets: Mapping[str, str] | None = None,
    number: int = 0,
    root: str = "one",
    body: Volume | None = None,
) -> Scan:
    """Prepare and store a volume of a scan, cropped to `body` with a margin of 5 voxels."""
    name = f"{root}/{subject}/{number}"
    scan = Scan(
        id=hashlib.sha256(name.encode()).hexdigest()[:12],
        root=root,
        subject=subject,
        modality="MR",
        split=split,
        targets=dict(targets or {}),
        labels={name: bool(file) for name, file in (labels or {}).items()},
        quality="accepted",
        format="NIfTI",
        sha256=hashlib.sha256(volume.data.tobytes()).hexdigest(),
        voxel_hash=hashlib.sha256(volume.data.tobytes()).hexdigest(),
    )
    masks = {"foreground": body} if body else {}
    prepared = prepare_volume(volume, "MR", _shelf(folder).preprocess, label_masks=masks)
    _shelf(folder).put(scan, prepared)
    for label in (name for name, there in scan.labels.items() if there):
        link = label_link_path(folder, scan.id, label)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to((labels or {})[label])
    return scan


def build_study(folder: Path, scans: list[Scan]) -> StoredStudy:
    """The catalog of stored scans, and a reader of it."""
    catalog = Catalog.build(_shelf(folder), scans)
    assert len(catalog.entries) == len(scans)
    return StoredStudy(catalog, CropReader(folder / "volumes", catalog), folder)


def _shelf(folder: Path) -> VolumeStore:
    return VolumeStore(folder / "volumes", Preprocess(foreground="all"), StoreSettings())


def _plant_blobs(
    rng: np.random.Generator, target: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A volume (x, y, z), its labels and affine."""
    anatomy = read_volume(Source(ANATOMY))
    data = anatomy.data[3:29, 6:36, :].astype(np.float32)
    sd = float(data.std())
    data += rng.normal(0, 0.1 * sd, data.shape).astype(np.float32)
    label_map = np.zeros(data.shape, np.uint8)
    grid = np.stack(np.indices(data.shape))
    for value, x, change in ((BRIGHT, (5, 9), 4 * sd), (DARK, (15, 19), -4 * sd)):
        centre = np.array([rng.integers(*x), rng.integers(10, 20), rng.integers(8, 16)])
        inside = ((grid - centre[:, None, None, None]) ** 2).sum(axis=0) <= 16
        data[inside] += change
        label_map[inside] = value
    if target:
        data[8:18, 9:21, 14:20] += 4 * sd
    return data, label_map, anatomy.affine


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: models this small wait for threads longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """8 training and 10 test subjects with two scans each, of target 0 and 1."""
    folder = tmp_path_factory.mktemp("planted")
    scans = []
    for index in range(18):
        rng = np.random.default_rng(index)
        for target in (0, 1):
            data, label_map, affine = _plant_blobs(rng, target)
            file = folder / f"labels-{index}-{target}.nii.gz"
            nib.save(nib.Nifti1Image(label_map, affine), file)
            scans.append(
                store_scan(
                    folder,
                    subject=f"s{index:02d}",
                    split="train" if index < 8 else "test",
                    volume=Volume(data, affine, "MR"),
                    labels={"blobs": str(file), "other": ""},
                    targets={"corner": str(target), "protocol": "ab"[index % 2]},
                    number=target,
                )
            )
    return build_study(folder, scans)


@pytest.fixture(scope="session")
def single(planted: StoredStudy) -> StoredStudy:
    """The same subjects with one scan each, of target 0."""
    return planted.where(lambda entry: entry.targets["corner"] == "0")


@pytest.fixture(scope="session")
def small(single: StoredStudy) -> StoredStudy:
    """Six training and four test subjects, with one scan each."""
    return single.where(lambda entry: int(entry.subject[1:]) in (*range(6), *range(8, 12)))


@pytest.fixture(scope="session")
def anatomy() -> Volume:
    """A small real volume."""
    return read_volume(Source(ANATOMY))


@pytest.fixture
def few(tmp_path: Path, anatomy: Volume) -> Callable[..., StoredStudy]:
    """Makes a study of unchanged volumes from (subject, split, targets, labels, root)."""

    def make(*rows: tuple[str, str, dict[str, str], dict[str, str], str]) -> StoredStudy:
        scans = [
            store_scan(
                tmp_path,
                subject=subject,
                split=split,
                volume=anatomy,
                targets=targets,
                labels=labels,
                number=number,
                root=root,
            )
            for number, (subject, split, targets, labels, root) in enumerate(rows)
        ]
        return build_study(tmp_path, scans)

    return make


@pytest.fixture
def store_volumes(tmp_path: Path) -> Callable[[list[dict[str, Any]]], StoredStudy]:
    """Stores volumes given with the keywords of `store_scan`."""
    return lambda rows: build_study(tmp_path, [store_scan(tmp_path, **row) for row in rows])


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of public data, where the environment names it."""
    folder = os.environ.get("SSL_PIPELINE_DATA", "")
    if not folder:
        pytest.skip("SSL_PIPELINE_DATA names no folder of public data")
    return Path(folder)
