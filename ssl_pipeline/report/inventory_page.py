"""The inventory as an HTML page: every scan in three planes, with its quality and the reason.

One file that opens from disk: rows are data in it, and a short script draws those in view, so that
5,000 scans (some 20 MB, nearly all of it thumbnails) sort and filter at once. Like the report it
names scans by their codes, for folder names often contain names of people.
"""

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_pipeline.io.atomic import write_text
from ssl_pipeline.report.render.templates import template_environment
from ssl_pipeline.report.sections import dataset
from ssl_pipeline.volumes.inventory import Inventory, Scan
from ssl_pipeline.volumes.root_notes import RootNote, root_notes

INVENTORY_PAGE = "inventory.html"


def write_inventory_page(
    inventory: Inventory,
    name: str,
    path: Path,
    notes: Sequence[RootNote] = (),
    label_changes: str = "",
) -> None:
    """Write the page; `name` is the study's, and `notes` go below those of the inventory itself.

    `label_changes` says which labels have changed, and is empty where none have.
    """
    write_text(path, render_inventory_page(inventory, name, notes, label_changes))


def render_inventory_page(
    inventory: Inventory, name: str, notes: Sequence[RootNote] = (), label_changes: str = ""
) -> str:
    """The page as HTML; equal inventories make equal pages."""
    rows = [
        _page_row(scan, inventory.thumbnails)
        for scan in (*inventory.scans, *inventory.orphan_labels)
    ]
    return (
        template_environment()
        .get_template("inventory.html")
        .render(
            name=name,
            summary=dataset.inventory_summary(inventory, label_changes),
            notes=[*root_notes(inventory), *notes],
            rows=rows,
            choices={
                key: _filter_choices(rows, key) for key in ("quality", "root", "modality", "why")
            },
        )
    )


def _page_row(scan: Scan, thumbnails: Mapping[str, bytes]) -> dict[str, Any]:
    """A scan as a row of the page's script."""
    labels = [name for name, fits in scan.labels.items() if fits]
    known = math.prod(scan.shape) > 0
    return {
        "id": scan.id,
        "quality": scan.quality,
        "reason": scan.reason,
        "why": dataset.reason_category(scan) if scan.reason else "",
        "root": scan.root,
        "part": scan.part,
        "modality": scan.modality,
        "format": scan.format,
        "size": " × ".join(str(side) for side in scan.shape) if known else "",
        "voxels": math.prod(scan.shape),
        "spacing": " × ".join(f"{side:.3g}" for side in scan.spacing_mm) if known else "",
        "widest": max(scan.spacing_mm),
        "axes": scan.orientation,
        "split": scan.split,
        "subject": scan.subject,
        "labels": ", ".join(labels),
        "jpeg": base64.b64encode(thumbnails.get(scan.id, b"")).decode(),
    }


def _filter_choices(rows: list[dict[str, Any]], key: str) -> list[tuple[str, int]]:
    """Every value of a column that is not empty and how many rows have it, commonest first."""
    found = Counter(row[key] for row in rows if row[key])
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))
