"""The labels of one scan: which of them fit it, and which serve as masks.

A label that readers found to fit is used on its own grid, whose affine says where it lies; as a
mask it is not, for masks are taken voxel by voxel.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ssl_pipeline.volumes import label_matching, readers
from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.label_matching import LabelProvenance
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.review import (
    NO_DECISIONS,
    REJECTED,
    Decision,
    Decisions,
    label_item,
    pair_sha256,
)
from ssl_pipeline.volumes.scan_check import source_sha256


class LabelMatch(NamedTuple):
    """The labels that are used, notes on others, which are masks, classes, and what was found.

    `checks` has all labels that can be used, whatever readers said, with their `sha256`, `verdict`,
    `kind` and `reader`.
    """

    labels: tuple[str, ...] = ()
    note: str = ""
    masks: Mapping[str, dict[str, str]] = MappingProxyType({})
    classes: Mapping[str, list[int]] = MappingProxyType({})  # values, by the label's name
    checks: Mapping[str, dict[str, str]] = MappingProxyType({})


LabelMatcher = Callable[[Candidate, str], LabelMatch]  # of a scan, whose files have this hash


def match_labels(
    candidate: Candidate, scan_sha256: str, decisions: Decisions = NO_DECISIONS
) -> LabelMatch:
    """The labels on the image's own grid, less those that readers rejected, and those accepted."""
    label_paths = {name: path for name, path in candidate.labels.items() if path}
    if not label_paths:
        return LabelMatch(note=candidate.label_note)
    grid = readers.read_grid(candidate.source)
    kinds: dict[str, str] = candidate.root.masks.model_dump(exclude_none=True)
    found = {
        name: label_matching.check_label(name, path, grid, is_mask=name in kinds.values())
        for name, path in label_paths.items()
    }
    hashes = {
        name: source_sha256(Source(label_paths[name]))
        for name, each in found.items()
        if each.can_be_used
    }
    decided = {
        name: decision
        for name, sha256 in hashes.items()
        if (decision := decisions.labels.get(label_item(candidate.id, name, candidate.code)))
        and decision.sha256 == pair_sha256((scan_sha256, sha256))
    }
    fitting = tuple(name for name in found if _fits(found[name].fault, decided.get(name)))
    notes = [_note(name, each.fault, decided.get(name)) for name, each in found.items()]
    return LabelMatch(
        fitting,
        "; ".join(filter(None, [*notes, candidate.label_note])),
        {
            kind: {"label": name, "sha256": hashes[name]}
            for kind, name in kinds.items()
            if name in fitting and not found[name].fault
        },
        {name: classes for name in fitting if (classes := found[name].classes) is not None},
        {
            name: {"sha256": hashes[name], "verdict": found[name].verdict}
            | candidate.label_provenance.get(name, LabelProvenance())._asdict()
            for name in hashes
        },
    )


def _fits(fault: str, decision: Decision | None) -> bool:
    return decision.verdict == "accept" if decision else not fault


def _note(name: str, fault: str, decision: Decision | None) -> str:
    """What is to be said of a label, such as why it is not used; empty where that is nothing."""
    if decision is None:
        return fault
    if decision.verdict == "reject":
        return f"label {name} was {REJECTED} {decision.signature}"
    return f"accepted in review {decision.signature}, against: {fault}" if fault else ""
