"""Draw the inventory as one page: every scan in three planes, with its quality and the reason."""

from dataclasses import replace
from pathlib import Path

from ssl_pipeline.report.inventory_page import write_inventory_page
from ssl_pipeline.volumes import thumbnails
from ssl_pipeline.volumes.inventory import Inventory
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    ResourceEstimate,
    assumed,
    counted,
)
from stages.core.runner import StageResult, manifest_hash
from stages.core.study import Study

CONFIG_KEYS = ("name",)
DEPENDS_ON = ("inventory",)
VERSION = 1
OUTPUTS = ("inventory.html",)
PAGE_BYTES, SCAN_BYTES = 20_000, 4_000  # a scan's thumbnail, as text, and its row
BASE_BYTES = 260e6  # a process that has imported what draws pages


def inputs(study: Study) -> dict[str, str]:
    """The inventory."""
    return {"inventory": manifest_hash(study, "inventory")}


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """One page, with the thumbnails of all scans inside."""
    scans = len(dataset.scans)
    return ResourceEstimate(
        disk=assumed(PAGE_BYTES + SCAN_BYTES * scans, f"{SCAN_BYTES / 1e3:.0f} kB a scan"),
        files=counted(RECORD_FILE_COUNT + len(OUTPUTS), "the page"),
        memory=assumed(BASE_BYTES + 4 * SCAN_BYTES * scans, "the page, a few times"),
        seconds=assumed(5.0, "5 s a page"),
    )


def run(study: Study, out: Path) -> StageResult:
    """Write the page, from the stored table and thumbnails."""
    source, page = study.folder / "inventory", out / OUTPUTS[0]
    inventory = Inventory.read(source / "scans.parquet")
    images = thumbnails.read(source / "thumbnails.parquet")
    write_inventory_page(replace(inventory, thumbnails=images), study.name, page)
    return StageResult([page], f"the page is {page}")
