"""Draw the inventory as one page: every scan in three planes, with its quality and the reason."""

from dataclasses import replace
from pathlib import Path

from ssl_pipeline.io.records import read_record
from ssl_pipeline.preprocess.plan import Plan
from ssl_pipeline.report.inventory_page import INVENTORY_PAGE, write_inventory_page
from ssl_pipeline.volumes import thumbnails
from ssl_pipeline.volumes.inventory import REMEDY, Inventory
from ssl_pipeline.volumes.label_versions import describe_label_changes, read_label_versions
from ssl_pipeline.volumes.thumbnails import THUMBNAILS_FILE
from stages.core import layout
from stages.core.records import manifest_hash
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    ResourceEstimate,
    assumed,
    counted,
)
from stages.core.stage import StageResult
from stages.core.study import Study

TITLE = "Draw all raw scans on one page"
CONFIG_KEYS = ("name",)
DEPENDS_ON = ("inventory",)
VERSION = 3
OUTPUTS = (INVENTORY_PAGE,)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = False, False, False
SHARDED, PER_TRIAL = False, False
PAGE_BYTES, SCAN_BYTES = 20_000, 4_000  # a scan's thumbnail, as text, and its row
BASE_BYTES = 260e6  # a process that has imported what draws pages


def is_needed(study: Study) -> bool:
    """Always."""
    return True


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
    table, page = layout.inventory_table(study), out / INVENTORY_PAGE
    inventory = Inventory.read(table)
    images = thumbnails.read(table.with_name(THUMBNAILS_FILE))
    plan = read_record(Plan, layout.plan_file(study), REMEDY)
    changes = describe_label_changes(read_label_versions(layout.label_versions(study)))
    drawn = replace(inventory, thumbnails=images)
    write_inventory_page(drawn, study.name, page, plan.notes, changes)
    return StageResult([page], f"the page is {page}")
