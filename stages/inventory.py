"""Look at every raw volume once: what it is, whose it is, and whether it can be used."""

import math
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.progress import detail
from ssl_pipeline.volumes import outlook
from ssl_pipeline.volumes.inventory import Inventory, take_inventory
from ssl_pipeline.volumes.listing import listing_hash, remember
from stages.contract import Made, manifest_hash
from stages.need import RECORDS, Known, Need, Place, assumed, counted
from stages.study import Study

READS = ("data", "quality")
AFTER = ("sample",)
VERSION = 1
MAKES = ("scans.parquet", "listing.json")


def inputs(study: Study) -> dict[str, str]:
    """The listing of the raw folders: a file's path, size and content, not its date alone."""
    sampled = {"sample": manifest_hash(study, "sample")} if study.sample.packages else {}
    return {**sampled, "listing": listing(study)}


def listing(study: Study) -> str:
    """Hash of the listing, as the Snakefile asks for it too."""
    return listing_hash(study.data, study.source_folder, _record(study))


def _record(study: Study) -> Path:
    return study.folder / "inventory" / "listing.json"


def need(study: Study, known: Known, on: Place) -> Need:
    """Every scan is read whole, a few at a time."""
    voxels = [math.prod(scan.shape) for scan in known.scans]
    return Need(
        disk=assumed(10_000 + 1_200 * len(voxels), "1.2 kB a scan"),
        files=counted(RECORDS + 2, "the table and the listing"),
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
    """Write a verdict for every scan; stop with a sentence when none is accepted."""
    scans = out / "scans.parquet"
    previous = Inventory.read(scans) if scans.exists() else None
    inventory = take_inventory(study.data, study.quality, study.source_folder, previous)
    inventory.write(scans)
    remember(study.data, study.source_folder, _record(study), inventory)
    rejected = [scan for scan in inventory.scans if scan.verdict == "rejected"]
    for scan in rejected:
        detail(f"{scan.id} rejected: {scan.reason}")
    if not inventory.accepted:
        reasons = "; ".join(sorted({scan.reason for scan in rejected})[:3])
        raise UserError(f"None of {len(rejected)} scans can be used ({reasons}): see {scans}.")
    return Made([scans], f"{len(inventory.accepted)} scans accepted, {len(rejected)} rejected")
