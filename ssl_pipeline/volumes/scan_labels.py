"""The labels of one scan: which of them fit it, and which serve as masks."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ssl_pipeline.volumes import label_matching, readers
from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.scan_check import source_sha256


class LabelMatch(NamedTuple):
    """The labels that fit a scan, a note on those that do not, which are masks, and classes."""

    labels: tuple[str, ...] = ()
    note: str = ""
    masks: Mapping[str, dict[str, str]] = MappingProxyType({})
    classes: Mapping[str, list[int]] = MappingProxyType({})  # values, by the label's name


LabelMatcher = Callable[[Candidate], LabelMatch]


def match_labels(candidate: Candidate) -> LabelMatch:
    """The labels that lie on the image's own grid, with their classes; why others do not fit."""
    label_paths = {name: path for name, path in candidate.labels.items() if path}
    if not label_paths:
        return LabelMatch()
    grid = readers.read_grid(candidate.source)
    kinds: dict[str, str] = candidate.root.masks.model_dump(exclude_none=True)
    checks = {
        name: label_matching.check_label(name, path, grid, is_mask=name in kinds.values())
        for name, path in label_paths.items()
    }
    fitting = tuple(name for name in label_paths if not checks[name].fault)
    masks = {
        kind: {"label": name, "sha256": source_sha256(Source(label_paths[name]))}
        for kind, name in kinds.items()
        if name in fitting
    }
    classes = {name: each.classes for name, each in checks.items() if each.classes is not None}
    faults = "; ".join(filter(None, (each.fault for each in checks.values())))
    return LabelMatch(fitting, faults, masks, classes)
