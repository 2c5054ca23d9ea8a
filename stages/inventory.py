"""Look at every raw volume once: what it is, whose it is, and whether it can be used."""

from dataclasses import replace
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.progress import detail
from ssl_pipeline.report.inventory_page import write_inventory_page
from ssl_pipeline.volumes import thumbnails
from ssl_pipeline.volumes.inventory import Inventory, take_inventory
from ssl_pipeline.volumes.listing import listing_hash, remember
from stages.contract import Made, manifest_hash
from stages.study import Study

READS = ("data", "quality")
VERSION = 2


def inputs(study: Study) -> dict[str, str]:
    """The listing of the raw folders: a file's path, size and content, not its date alone."""
    sampled = {"sample": manifest_hash(study, "sample")} if study.sample.packages else {}
    return {**sampled, "listing": listing(study)}


def listing(study: Study) -> str:
    """Hash of the listing, as the Snakefile asks for it too."""
    return listing_hash(study.data, study.source_folder, _record(study))


def _record(study: Study) -> Path:
    return study.folder / "inventory" / "listing.json"


def run(study: Study, out: Path) -> Made:
    """Write a verdict for every scan, and the page of them; stop when none can be used."""
    scans, pictures, page = (
        out / name for name in ("scans.parquet", "thumbnails.parquet", "inventory.html")
    )
    previous = None
    if scans.exists():
        previous = replace(Inventory.read(scans), thumbnails=thumbnails.read(pictures))
    inventory = take_inventory(study.data, study.quality, study.source_folder, previous)
    inventory.write(scans)
    thumbnails.write(pictures, inventory.thumbnails)
    write_inventory_page(inventory, study.name, page)
    remember(study.data, study.source_folder, _record(study), inventory)
    rejected = [scan for scan in inventory.scans if scan.verdict == "rejected"]
    for scan in rejected:
        detail(f"{scan.id} rejected: {scan.reason}")
    if not inventory.accepted:
        reasons = "; ".join(sorted({scan.reason for scan in rejected})[:3])
        raise UserError(f"None of {len(rejected)} scans can be used ({reasons}): see {page}.")
    repaired = sum(scan.verdict == "repaired" for scan in inventory.scans)
    some = f" ({repaired} repaired)" if repaired else ""
    told = f"{len(inventory.accepted)} scans accepted{some}, {len(rejected)} rejected: {page}"
    return Made([scans, pictures, page], told)
