"""Look at every raw volume once: what it is, whose it is, and whether it can be used."""

import math
from dataclasses import replace
from pathlib import Path

from ssl_pipeline.atomic import read_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.progress import detail
from ssl_pipeline.report.inventory_page import write_inventory_page
from ssl_pipeline.volumes import keypoints, outlook, thumbnails
from ssl_pipeline.volumes.inventory import Inventory, salt_of, take_inventory
from ssl_pipeline.volumes.listing import listing_hash, remember
from stages.contract import Made, manifest_hash
from stages.need import RECORDS, Known, Need, Place, assumed, counted
from stages.study import Study

READS = ("data", "quality")
AFTER = ("sample",)
VERSION = 4
MAKES = ("scans.parquet", "thumbnails.parquet", "keypoints.parquet", "inventory.html")
PAGE_BYTES, SCAN_BYTES = 20_000, 16_000  # on disk: a thumbnail twice, keypoints, and the rows


def inputs(study: Study) -> dict[str, str]:
    """The listing of the raw folders: a file's path, size and content, not its date alone.

    Raises UserError where the salt is not the one that earlier results were made with.
    """
    study.origins.check(salt_of(study.folder / "inventory" / "scans.parquet"))
    trained = study.folder / "pretrain" / "run.json"
    study.origins.check(read_json(trained).get("salt", "") if trained.exists() else "")
    sampled = {"sample": manifest_hash(study, "sample")} if study.sample.packages else {}
    return {**sampled, "listing": listing(study)}


def listing(study: Study) -> str:
    """Hash of the listing, as the Snakefile asks for it too."""
    return listing_hash(study.data, study.source_folder, study.origins.listing)


def need(study: Study, known: Known, on: Place) -> Need:
    """Every scan is read whole, a few at a time."""
    voxels = [math.prod(scan.shape) for scan in known.scans]
    return Need(
        disk=assumed(PAGE_BYTES + SCAN_BYTES * len(voxels), f"{SCAN_BYTES / 1e3:.0f} kB a scan"),
        files=counted(RECORDS + len(MAKES), "table, thumbnails, keypoints and page"),
        memory=assumed(
            outlook.look_bytes(voxels),
            f"{outlook.LOOK_BYTES} bytes a voxel of the largest scans",
        ),
        seconds=assumed(
            outlook.look_seconds(voxels),
            f"{1e-6 / outlook.LOOK_S_A_VOXEL:.0f} million voxels/s on a core",
        ),
    )


def run(study: Study, out: Path) -> Made:
    """Write a verdict for every scan, and the page of them; stop when none can be used."""
    scans, pictures, points, page = (out / name for name in MAKES)
    origins, previous = study.origins, _previous(scans, pictures, points)
    inventory = take_inventory(study.data, study.quality, study.source_folder, origins, previous)
    inventory.write(scans)
    thumbnails.write(pictures, inventory.thumbnails)
    keypoints.write(points, inventory.keypoints)
    write_inventory_page(inventory, study.name, page)
    remember(study.data, study.source_folder, origins, inventory)
    rejected = [scan for scan in inventory.scans if scan.verdict == "rejected"]
    for scan in rejected:
        detail(f"{scan.id} rejected: {scan.reason}")
    if not inventory.accepted:
        reasons = "; ".join(sorted({scan.reason for scan in rejected})[:3])
        raise UserError(f"None of {len(rejected)} scans can be used ({reasons}): see {page}.")
    repaired = sum(scan.verdict == "repaired" for scan in inventory.scans)
    some = f" ({repaired} repaired)" if repaired else ""
    told = f"{len(inventory.accepted)} scans accepted{some}, {len(rejected)} rejected: {page}"
    return Made([scans, pictures, points, page], told, listed=[origins.table])


def _previous(scans: Path, pictures: Path, points: Path) -> Inventory | None:
    """What an earlier run found; None where there is none, or one of another version."""
    try:
        return replace(
            Inventory.read(scans),
            thumbnails=thumbnails.read(pictures),
            keypoints=keypoints.read(points),
        )
    except (FileNotFoundError, UserError):
        return None
