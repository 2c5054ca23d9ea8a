"""Notes on whole roots: what no row of a single scan says, and is easily overlooked."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ssl_pipeline.formatting import format_count
from ssl_pipeline.volumes.inventory import USABLE, Inventory, Scan

PLANES = {**dict.fromkeys("LR", "sagittal"), **dict.fromkeys("AP", "coronal")}
MIN_SCANS_OF_MANY = 4  # scans of one root that are seldom all of one person
MIN_SLICE_RATIO = 1.5  # of the widest spacing to the next, from which on a scan has slices


class RootNote(NamedTuple):
    """One sentence, without a full stop, about the scans of one root."""

    root: str
    text: str


def root_notes(inventory: Inventory) -> list[RootNote]:
    """Unread files, labels, subjects, planes and visits that may be a mistake, by root."""
    roots = dict.fromkeys([*(scan.root for scan in inventory.scans), *inventory.unread_formats])
    return [RootNote(root, text) for root in roots for text in _texts(inventory, root)]


def slice_plane(scan: Scan) -> str:
    """The plane of a scan's slices, such as "axial"; empty where no axis is clearly the widest."""
    spacing = sorted(zip(scan.spacing_mm, scan.orientation, strict=False), reverse=True)
    if len(spacing) < 3 or spacing[0][0] < MIN_SLICE_RATIO * spacing[1][0]:
        return ""
    return PLANES.get(spacing[0][1], "axial")


def _texts(inventory: Inventory, root: str) -> Iterator[str]:
    scans = [scan for scan in inventory.accepted_scans if scan.root == root]
    if unread := inventory.unread_formats.get(root):
        yield _unread_text(unread)
    for name in sorted({name for scan in scans for name in scan.labels}):
        lacking = [scan for scan in scans if not scan.labels.get(name)]
        if lacking:
            count = f"{len(lacking)} of {format_count(len(scans), 'accepted scan')}"
            yield f"{count} have no label {name} that fits, such as {lacking[0].id}"
        if empty := [scan for scan in scans if scan.label_classes.get(name) == []]:
            number = format_count(len(empty), "accepted scan")
            verb = "has" if len(empty) == 1 else "have"
            yield f"{number} {verb} an empty label {name}, such as {empty[0].id}"
    orphans = [row for row in inventory.orphan_labels if row.root == root]
    if orphans:
        number = format_count(len(orphans), "label file")
        yield f"{number} without a scan, such as {orphans[0].id}"
    subjects = {scan.subject for scan in scans}
    if len(scans) >= MIN_SCANS_OF_MANY and len(subjects) == 1 and subjects != {""}:
        yield f"its {len(scans)} scans are of one subject; correct its `subject` if they are not"
    if text := _plane_text(scans):
        yield text
    yield from _visit_texts([scan for scan in inventory.scans if scan.root == root])


def _unread_text(formats: Mapping[str, int]) -> str:
    ranked = sorted(formats.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{number} {suffix}" for suffix, number in ranked)
    return f"{format_count(sum(formats.values()), 'file')} of no known image format ({kinds})"


def _plane_text(scans: Sequence[Scan]) -> str:
    planes = Counter(plane for scan in scans if (plane := slice_plane(scan)))
    if len(planes) < 2:
        return ""
    counts = ", ".join(f"{number} {plane}" for plane, number in planes.most_common())
    return f"its scans are sliced in different planes: {counts}; give each plane a root of its own"


def _visit_texts(scans: Sequence[Scan]) -> Iterator[str]:
    """Visits of which a part is not used, and those with one scan beside others with several."""
    visits: dict[str, list[Scan]] = {}
    for scan in scans:
        if scan.visit:
            visits.setdefault(scan.visit, []).append(scan)
    used = {code: [s for s in visit if s.quality in USABLE] for code, visit in visits.items()}
    lacking = {code: len(visit) - len(used[code]) for code, visit in visits.items()}
    if any(lacking.values()):
        code = max(lacking, key=lambda each: lacking[each])
        yield (
            f"{_count_of(sum(map(bool, lacking.values())), visits)} scans that are not used, such"
            f" as visit {code}, {lacking[code]} of {len(visits[code])}"
        )
    alone = [code for code, rest in used.items() if len(rest) == 1]
    if alone and any(len(rest) > 1 for rest in used.values()):
        yield (
            f"{_count_of(len(alone), visits)} one usable scan, without a partner, such"
            f" as visit {alone[0]}"
        )


def _count_of(number: int, visits: Mapping[str, object]) -> str:
    return f"{number} of {format_count(len(visits), 'visit')} {'has' if number == 1 else 'have'}"
