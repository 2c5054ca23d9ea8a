"""Dataset tables: scans by root, site, geometry and label, and why scans were rejected.

Scans are named by their codes: paths often contain names of people, and the report is made to be
shared.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from ssl_pipeline.formatting import format_bytes, format_count
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.volumes.inventory import USABLE, Inventory, Scan
from ssl_pipeline.volumes.root_notes import root_notes
from ssl_pipeline.volumes.target_values import MAX_TEXT

MAX_ROWS = 200
MAX_SITES = 30
SPLIT_TITLES = {"train": "train", "val": "val", "test": "test", "": "no split"}
# A number on its own: no part of a name, nor of 2D and 4D.
CODE_PATTERN = re.compile(r"\b[0-9a-f]{12}\b")  # of a scan or a subject
NUMBER_PATTERN = re.compile(r"(?<![\w.])-?\d[\d.]*(?:e[+-]\d+)?(?!D|\w)")


def inventory_summary(inventory: Inventory, label_changes: str = "") -> str:
    """One sentence about all scans, and one about labels that have changed, if any have."""
    accepted, subjects = inventory.accepted_scans, _count_subjects(inventory.accepted_scans)
    rejected = len(inventory.scans) - len(accepted)
    repaired = sum(scan.quality == "repaired" for scan in accepted)
    some = f" ({repaired:,} of them repaired)" if repaired else ""
    orphans = format_count(len(inventory.orphan_labels), "label") + " without image"
    return (
        f"{format_count(len(inventory.scans), 'scan')} found: {len(accepted):,} accepted from "
        f"{format_count(subjects, 'subject')}{some}, {rejected:,} rejected; {orphans}."
        f"{f' {label_changes}.' if label_changes else ''}"
    )


def inventory_tables(inventory: Inventory) -> list[Table]:
    """The tables that summarise all scans."""
    makers: tuple[Callable[[Inventory], Table | None], ...] = (
        scan_table,
        site_table,
        sequence_table,
        geometry_table,
        label_table,
        rejection_reason_table,
        root_note_table,
    )
    return [table for make in makers if (table := make(inventory))]


def detail_tables(inventory: Inventory) -> list[Table]:
    """The tables that list single scans."""
    makers = (rejected_scan_table, orphan_label_table, scan_note_table)
    return [table for make in makers if (table := make(inventory))]


def scan_table(inventory: Inventory) -> Table:
    """Scans by root, modality and format."""
    groups: dict[tuple[str, str, str], list[Scan]] = {}
    for scan in inventory.scans:
        groups.setdefault((scan.root, scan.modality or "unknown", scan.format), []).append(scan)
    rows = []
    for key, scans in sorted(groups.items()):
        accepted = [scan for scan in scans if scan.quality in USABLE]
        repaired = sum(scan.quality == "repaired" for scan in scans)
        rejected = len(scans) - len(accepted)
        rows.append((*key, *_split_counts(accepted), f"{repaired:,}", f"{rejected:,}"))
    counts = ("scans", "subjects", *SPLIT_TITLES.values(), "of them repaired", "rejected")
    head = ("root", "modality", "format", *counts)
    return Table("Accepted scans by root, modality and format", head, rows, text_columns=3)


def site_table(inventory: Inventory) -> Table | None:
    """Scans by site; None where no site is known."""
    groups: dict[str, list[Scan]] = {}
    for scan in inventory.accepted_scans:
        groups.setdefault(scan.site, []).append(scan)
    if set(groups) <= {""}:
        return None
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [(site or "unknown", *_split_counts(scans)) for site, scans in ranked[:MAX_SITES]]
    more = f", the largest {MAX_SITES} of {len(ranked)}" if len(ranked) > MAX_SITES else ""
    return Table(
        f"Accepted scans by site{more}", ("site", "scans", "subjects", *SPLIT_TITLES.values()), rows
    )


def sequence_table(inventory: Inventory) -> Table | None:
    """Scans by sequence, their visits, and how many have another scan of their visit in one frame.

    None where neither a sequence nor a visit is known.
    """
    scans = inventory.accepted_scans
    if not any(scan.sequence or scan.visit for scan in scans):
        return None
    sharing = Counter((scan.visit, scan.frame) for scan in scans if scan.visit and scan.frame)
    groups: dict[str, list[Scan]] = {}
    for scan in scans:
        groups.setdefault(scan.sequence, []).append(scan)
    rows = [
        (
            sequence or "unknown",
            *_split_counts(own),
            f"{len({scan.visit for scan in own if scan.visit}):,}",
            f"{sum(sharing[scan.visit, scan.frame] > 1 for scan in own):,}",
        )
        for sequence, own in sorted(groups.items())
    ]
    counts = ("scans", "subjects", *SPLIT_TITLES.values(), "visits", "with a scan of one frame")
    return Table("Accepted scans by sequence", ("sequence", *counts), rows)


def geometry_table(inventory: Inventory) -> Table | None:
    """Least, middle and largest voxel and image of each modality; None without accepted scans."""
    rows = []
    for modality in sorted({scan.modality for scan in inventory.accepted_scans}):
        scans = [scan for scan in inventory.accepted_scans if scan.modality == modality]
        for what, of, form in _MEASURES:
            values = [of(scan) for scan in scans]
            cells = (
                " × ".join(form.format(pick(axis)) for axis in zip(*values, strict=True))
                for pick in (min, median, max)
            )
            rows.append((modality, what, *cells))
    head = ("modality", "measure", "least", "median", "largest")
    caption = "Voxels and images, axis by axis in the order of the files"
    return Table(caption, head, rows, text_columns=2) if rows else None


_MEASURES: tuple[tuple[str, Callable[[Scan], tuple[float, ...]], str], ...] = (
    ("spacing (mm)", lambda scan: scan.spacing_mm, "{:.3g}"),
    ("size (voxels)", lambda scan: scan.shape, "{:.0f}"),
)


def label_table(inventory: Inventory) -> Table | None:
    """How many scans have each label and target; None where the study names none."""
    rows = []
    for kind in ("label", "target"):
        sources = [
            (s, s.labels if kind == "label" else s.targets) for s in inventory.accepted_scans
        ]
        for name in sorted({name for _, own in sources for name in own}):
            having = [(scan, own[name]) for scan, own in sources if own.get(name)]
            values = Counter(str(value) for _, value in having) if kind == "target" else Counter()
            shown = _common_values(values) or "voxels"
            rows.append((name, kind, shown, *_split_counts([s for s, _ in having])))
    head = ("name", "kind", "values", "scans", "subjects", *SPLIT_TITLES.values())
    return (
        Table("Labels and targets of accepted scans", head, rows, text_columns=3) if rows else None
    )


def _common_values(values: Counter[str]) -> str:
    """The commonest values of a target, and how many scans have each."""
    if any(len(value) > MAX_TEXT for value in values):
        return "vectors"
    shown = ", ".join(f"{value}: {number:,}" for value, number in values.most_common(8))
    return f"{shown}, …" if len(values) > 8 else shown


def rejection_reason_table(inventory: Inventory) -> Table | None:
    """Why scans were rejected, commonest first; None where none was."""
    rejected = [scan for scan in inventory.scans if scan.quality == "rejected"]
    found = Counter(reason_category(scan) for scan in rejected)
    rows = [(reason, f"{number:,}") for reason, number in found.most_common(MAX_ROWS)]
    return (
        Table("Why scans were rejected", ("reason", "scans"), rows, can_wrap=True) if rows else None
    )


def root_note_table(inventory: Inventory) -> Table | None:
    """Notes on whole roots; None where there is none."""
    rows = root_notes(inventory)
    head = ("root", "note")
    return Table("Notes on roots", head, rows, text_columns=2, can_wrap=True) if rows else None


def rejected_scan_table(inventory: Inventory) -> Table | None:
    """Every rejected scan; None where none was."""
    rejected = [scan for scan in inventory.scans if scan.quality == "rejected"]
    return _scan_list_table("Rejected scans", rejected)


def orphan_label_table(inventory: Inventory) -> Table | None:
    """Every label without an image; None where there is none."""
    return _scan_list_table("Labels without an image", inventory.orphan_labels)


def scan_note_table(inventory: Inventory) -> Table | None:
    """Accepted scans that were repaired or have a note; None where there is none."""
    return _scan_list_table(
        "Repaired, or accepted with a note",
        [scan for scan in inventory.accepted_scans if scan.reason],
    )


def preprocessing_failure_table(failed: Mapping[str, str]) -> Table | None:
    """Accepted scans that could not be preprocessed; None where all could."""
    rows = sorted(failed.items())[:MAX_ROWS]
    caption = f"Not preprocessed: {format_count(len(failed), 'scan')}"
    return Table(caption, ("scan", "reason"), rows, text_columns=2, can_wrap=True) if rows else None


def cut_label_table(catalog: Catalog) -> Table | None:
    """Labels that reach out of their stored volume; None where none does."""
    rows = [
        (entry.id, name, f"{100 * share:.1f} %")
        for entry in catalog.entries
        for name, share in entry.meta.cut_labels.items()
    ]
    caption = f"Labels that reach out of the crop to the foreground: {len(rows):,}"
    head = ("scan", "label", "of its voxels outside")
    return Table(caption, head, rows[:MAX_ROWS], text_columns=2) if rows else None


def store_summary(catalog: Catalog) -> str:
    """One sentence about the stored volumes."""
    entries = catalog.entries
    total = sum(entry.bytes for entry in entries)
    body = [entry.meta.foreground_share for entry in entries]
    share = f", {100 * median(body):.0f} % of whose voxels (median) are body" if body else ""
    return f"{format_count(len(entries), 'volume')} stored in {format_bytes(total)}{share}."


def reason_category(scan: Scan) -> str:
    """A scan's reason or note without numbers and codes, so that like ones are counted."""
    return NUMBER_PATTERN.sub("…", CODE_PATTERN.sub("…", scan.reason))


def _scan_list_table(caption: str, scans: Sequence[Scan]) -> Table | None:
    rows = [(scan.id, scan.root, scan.reason) for scan in scans[:MAX_ROWS]]
    more = f", the first {MAX_ROWS}" if len(scans) > MAX_ROWS else ""
    head, title = ("scan", "root", "reason"), f"{caption}: {len(scans):,}{more}"
    return Table(title, head, rows, text_columns=3, can_wrap=True) if rows else None


def _count_subjects(scans: Iterable[Scan]) -> int:
    return len({(scan.subject or scan.id) for scan in scans})


def _split_counts(scans: Sequence[Scan]) -> tuple[str, ...]:
    """Scans, subjects, and scans of each split."""
    splits = Counter(scan.split for scan in scans)
    return (
        f"{len(scans):,}",
        f"{_count_subjects(scans):,}",
        *(f"{splits[name]:,}" for name in SPLIT_TITLES),
    )
