"""The inventory's page: every scan with its verdict, in one file of bounded size."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssl_pipeline.report.inventory_page import render_inventory_page
from ssl_pipeline.volumes.config import Data
from ssl_pipeline.volumes.inventory import Inventory, build_inventory
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from ssl_pipeline.volumes.quality_control import QualityThresholds
from tests.conftest import write_scans
from tests.volumes.volume_writers import save_nifti

RULE = {"pattern": r"person(?P<id>\d+)"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ann") / "Doe"


@pytest.fixture(scope="module")
def inventory(folder):
    """Six scans of a head, one tilted, one flat, one that is no image, and an orphan label."""
    write_scans(folder)
    images = folder / "images"
    flat = np.full((20, 20, 20), 7, np.int16)
    tilted = np.diag([2.0, 2, 2.2, 1])
    tilted[1, 2] = 0.5
    bright = np.random.default_rng(0).normal(100, 20, (20, 20, 20)).astype(np.int16)
    save_nifti(images / "person7.nii", bright, tilted)
    save_nifti(images / "person8.nii", flat, np.diag([2.0, 2, 2, 1]))
    (images / "person9<b>.nii").write_bytes(b"nothing")
    (images / "person1.nii.gz").unlink()
    root = {
        "path": str(images),
        "modality": "MR",
        "subject": RULE,
        "labels": {"tissue": {"path": str(folder / "labels")}},
    }
    origins = PseudonymStore(folder.parent / "private", "small", Path())
    return build_inventory(
        Data.model_validate({"roots": [root]}), QualityThresholds(), Path(), origins
    )


def rows(page: str, folder: Path) -> dict[str, dict]:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    origins = PseudonymStore(folder.parent / "private", "small", Path()).origins
    return {Path(origins[row["id"]].path).name: row for row in json.loads(data)}


def test_every_scan_and_orphan_is_there_with_its_quality_and_picture(inventory, folder):
    found = rows(render_inventory_page(inventory, "small"), folder)
    quality = {name: row["quality"] for name, row in found.items()}
    assert quality == {
        **{f"person{n}.nii.gz": "accepted" for n in (0, 2, 3, 4, 5)},
        "person1.nii.gz": "rejected",
        "person7.nii": "repaired",
        "person8.nii": "rejected",
        "person9<b>.nii": "rejected",
    }
    assert found["person1.nii.gz"]["reason"] == "label without image"
    assert found["person7.nii"]["reason"].endswith("are straightened")
    assert found["person8.nii"]["why"] == "every voxel has the same value, …"
    assert {name for name, row in found.items() if not row["jpeg"]} == {
        "person1.nii.gz",
        "person9<b>.nii",
    }


def test_it_stands_alone_and_names_no_folder(inventory):
    page = render_inventory_page(inventory, "small")
    assert not re.search(r"https?:|src=|href=", page)
    assert not re.search("Doe|/images|person", page)
    assert page == render_inventory_page(inventory, "small")


def test_five_thousand_scans_stay_below_30_mb(inventory):
    scans = [replace(inventory.scans[0], id=f"{number:012}") for number in range(5000)]
    (largest,) = sorted(inventory.thumbnails.values(), key=len)[-1:]
    many = Inventory(tuple(scans), thumbnails={scan.id: largest for scan in scans})
    assert 5e6 < len(render_inventory_page(many, "large").encode()) < 30e6
