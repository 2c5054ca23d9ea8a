"""What went in: how many scans of which kind, what was rejected and why.

Scans are named by their codes: paths often hold names of people, and the page is made to be passed
on.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from ssl_pipeline.report.numerals import count, size
from ssl_pipeline.report.tables import Table
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.volumes.inventory import USABLE, Inventory, Scan

MOST_ROWS = 200
MOST_SITES = 30
SPLITS = {"train": "train", "val": "val", "test": "test", "": "no split"}
# A number on its own: no part of a name, nor of 2D and 4D.
CODE = re.compile(r"\b[0-9a-f]{12}\b")  # of a scan or a subject
NUMBER = re.compile(r"(?<![\w.])-?\d[\d.]*(?:e[+-]\d+)?(?!D|\w)")


def summary(inventory: Inventory) -> str:
    """One sentence about all scans."""
    accepted, subjects = inventory.accepted, _subjects(inventory.accepted)
    rejected = len(inventory.scans) - len(accepted)
    repaired = sum(scan.verdict == "repaired" for scan in accepted)
    some = f" ({repaired:,} of them repaired)" if repaired else ""
    orphans = count(len(inventory.orphan_labels), "label") + " without image"
    return (
        f"{count(len(inventory.scans), 'scan')} found: {len(accepted):,} accepted from "
        f"{count(subjects, 'subject')}{some}, {rejected:,} rejected; {orphans}."
    )


def by_kind(inventory: Inventory) -> Table:
    """Scans by root, modality and format."""
    groups: dict[tuple[str, str, str], list[Scan]] = {}
    for scan in inventory.scans:
        groups.setdefault((scan.root, scan.modality or "unknown", scan.format), []).append(scan)
    rows = []
    for key, scans in sorted(groups.items()):
        accepted = [scan for scan in scans if scan.verdict in USABLE]
        repaired = sum(scan.verdict == "repaired" for scan in scans)
        rejected = len(scans) - len(accepted)
        rows.append((*key, *_counts(accepted), f"{repaired:,}", f"{rejected:,}"))
    told = ("scans", "subjects", *SPLITS.values(), "of them repaired", "rejected")
    head = ("root", "modality", "format", *told)
    return Table("Accepted scans by root, modality and format", head, rows, words=3)


def by_site(inventory: Inventory) -> Table | None:
    """Scans by site; None where no site is known."""
    groups: dict[str, list[Scan]] = {}
    for scan in inventory.accepted:
        groups.setdefault(scan.site, []).append(scan)
    if set(groups) <= {""}:
        return None
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [(site or "unknown", *_counts(scans)) for site, scans in ranked[:MOST_SITES]]
    more = f", the largest {MOST_SITES} of {len(ranked)}" if len(ranked) > MOST_SITES else ""
    return Table(
        f"Accepted scans by site{more}", ("site", "scans", "subjects", *SPLITS.values()), rows
    )


def geometry(inventory: Inventory) -> Table | None:
    """Least, middle and largest voxel and image of each modality; None without accepted scans."""
    rows = []
    for modality in sorted({scan.modality for scan in inventory.accepted}):
        scans = [scan for scan in inventory.accepted if scan.modality == modality]
        for what, of, form in _MEASURES:
            values = [of(scan) for scan in scans]
            cells = (
                " × ".join(form.format(pick(axis)) for axis in zip(*values, strict=True))
                for pick in (min, median, max)
            )
            rows.append((modality, what, *cells))
    head = ("modality", "measure", "least", "median", "largest")
    caption = "Voxels and images, axis by axis in the order of the files"
    return Table(caption, head, rows, words=2) if rows else None


_MEASURES: tuple[tuple[str, Callable[[Scan], tuple[float, ...]], str], ...] = (
    ("spacing (mm)", lambda scan: scan.spacing_mm, "{:.3g}"),
    ("size (voxels)", lambda scan: scan.shape, "{:.0f}"),
)


def labels(inventory: Inventory) -> Table | None:
    """How many scans have each label and target; None where the study names none."""
    rows = []
    for kind in ("label", "target"):
        sources = [(s, s.labels if kind == "label" else s.targets) for s in inventory.accepted]
        for name in sorted({name for _, own in sources for name in own}):
            having = [(scan, own[name]) for scan, own in sources if own.get(name)]
            values = Counter(value for _, value in having) if kind == "target" else Counter()
            shown = ", ".join(f"{value}: {number:,}" for value, number in values.most_common(8))
            more = ", …" if len(values) > 8 else ""
            rows.append((name, kind, shown + more or "voxels", *_counts([s for s, _ in having])))
    head = ("name", "kind", "values", "scans", "subjects", *SPLITS.values())
    return Table("What is known of accepted scans", head, rows, words=3) if rows else None


def reasons(inventory: Inventory) -> Table | None:
    """Why scans were rejected, commonest first; None where none was."""
    rejected = [scan for scan in inventory.scans if scan.verdict == "rejected"]
    found = Counter(general(scan) for scan in rejected)
    rows = [(reason, f"{number:,}") for reason, number in found.most_common(MOST_ROWS)]
    return Table("Why scans were rejected", ("reason", "scans"), rows, wraps=True) if rows else None


def rejects(inventory: Inventory) -> Table | None:
    """Every rejected scan; None where none was."""
    rejected = [scan for scan in inventory.scans if scan.verdict == "rejected"]
    return _listed("Rejected scans", rejected)


def orphans(inventory: Inventory) -> Table | None:
    """Every label without an image; None where there is none."""
    return _listed("Labels without an image", inventory.orphan_labels)


def notes(inventory: Inventory) -> Table | None:
    """Usable scans of which something must be said; None where there is none."""
    return _listed(
        "Repaired, or accepted with a note", [scan for scan in inventory.accepted if scan.reason]
    )


def failures(failed: Mapping[str, str]) -> Table | None:
    """Accepted scans that could not be preprocessed; None where all could."""
    rows = sorted(failed.items())[:MOST_ROWS]
    caption = f"Not preprocessed: {count(len(failed), 'scan')}"
    return Table(caption, ("scan", "reason"), rows, words=2, wraps=True) if rows else None


def stored(catalog: Catalog) -> str:
    """One sentence about the stored volumes."""
    entries = catalog.entries
    total = sum(entry.bytes for entry in entries)
    body = [entry.meta.foreground_share for entry in entries]
    share = f", {100 * median(body):.0f} % of whose voxels (median) are body" if body else ""
    return f"{count(len(entries), 'volume')} stored in {size(total)}{share}."


def general(scan: Scan) -> str:
    """A scan's reason or note without numbers and codes, so that like ones are counted."""
    return NUMBER.sub("…", CODE.sub("…", scan.reason))


def _listed(caption: str, scans: Sequence[Scan]) -> Table | None:
    rows = [(scan.id, scan.root, scan.reason) for scan in scans[:MOST_ROWS]]
    more = f", the first {MOST_ROWS}" if len(scans) > MOST_ROWS else ""
    head, title = ("scan", "root", "reason"), f"{caption}: {len(scans):,}{more}"
    return Table(title, head, rows, words=3, wraps=True) if rows else None


def _subjects(scans: Iterable[Scan]) -> int:
    return len({(scan.subject or scan.id) for scan in scans})


def _counts(scans: Sequence[Scan]) -> tuple[str, ...]:
    """Scans, subjects, and scans of each split."""
    splits = Counter(scan.split for scan in scans)
    return (
        f"{len(scans):,}",
        f"{_subjects(scans):,}",
        *(f"{splits[name]:,}" for name in SPLITS),
    )
