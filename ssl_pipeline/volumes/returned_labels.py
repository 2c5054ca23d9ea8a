"""Labels that come back to a study: those that readers have finished, and accepted predictions.

They lie outside of the folders that roots name. A finished label is preferred to the scan's own
file, for it corrects it. A prediction counts where there is no other label, and for training alone:
here, and nowhere else, it is decided that a scan of another split than train never has one. So
nothing can be scored by a prediction, whichever split a study scores.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from ssl_pipeline.volumes import label_matching, readers
from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.label_matching import LabelKind, LabelProvenance
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.review import REJECTED, pair_sha256
from ssl_pipeline.volumes.scan_check import ScanInfo, source_sha256
from ssl_pipeline.volumes.subjects.assignment import SubjectAssignment
from ssl_pipeline.volumes.volume import VoxelGrid

WORKERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ReturnedLabel:
    """A label file of a scan, by the scan's code and the label's name."""

    scan: str
    name: str
    path: Path
    kind: Literal["finished", "prediction"]
    reader: str = ""  # the short code of who finished or accepted it; empty where nobody signed
    classes: frozenset[int] = frozenset()  # that the study's tasks read of it
    content_sha256: str = ""  # of a prediction: `pair_sha256` of scan and file when accepted

    @property
    def title(self) -> str:
        """The label in a sentence."""
        return f"{self.name} ({self.kind}{', ' if self.reader else ''}{self.reader})"


class LabelFault(NamedTuple):
    """Why a label that came back is not used, in a sentence without a full stop."""

    scan: str  # its code, as the file says it
    text: str


def add_returned_labels(
    candidates: Sequence[Candidate],
    infos: Sequence[ScanInfo],
    subjects: Sequence[SubjectAssignment],
    returned: Iterable[ReturnedLabel],
) -> tuple[list[Candidate], list[LabelFault]]:
    """The candidates with the labels that came back, and what is wrong with those left out.

    `infos` and `subjects` are those of the candidates. A label of another grid, without any class,
    or with a class that neither a task nor the scan's own file has, is left out, and what the scan
    had stays.
    """
    by_scan: dict[str, list[ReturnedLabel]] = {}
    for label in returned:
        by_scan.setdefault(label.scan, []).append(label)
    unknown = by_scan.keys() - {candidate.id for candidate in candidates}
    faults = [
        LabelFault(code, f"label {label.title} is of no scan of the study: rename or remove it")
        for code in sorted(unknown)
        for label in by_scan[code]
    ]

    def add(candidate: Candidate, info: ScanInfo, subject: SubjectAssignment) -> Candidate:
        back = by_scan.get(candidate.id, ())
        own = [each for each in back if _may_have(each, candidate, subject.split)]
        # A reader's rejection of the scan changes nothing about its labels.
        is_readable = not info.fault or info.fault.startswith(REJECTED)
        return _with_labels(candidate, info.sha256, own) if own and is_readable else candidate

    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(add, candidates, infos, subjects))
    faults += [LabelFault(each.id, each.label_note) for each in found if each.label_note]
    return found, faults


def _may_have(label: ReturnedLabel, candidate: Candidate, split: str) -> bool:
    """Whether a scan of this split may have this label at all."""
    if label.kind == "prediction":
        return split == "train" and not candidate.labels.get(label.name)
    return True


def _with_labels(
    candidate: Candidate, scan_sha256: str, returned: Sequence[ReturnedLabel]
) -> Candidate:
    grid = readers.read_grid(candidate.source)
    labels, sources, faults = dict(candidate.labels), dict(candidate.label_provenance), []
    for name in dict.fromkeys(label.name for label in returned):
        own = labels.get(name)
        found = [label for label in returned if label.name == name]
        label, fault = _preferred(found, scan_sha256)
        if fault := fault or _fault(label, grid, own):
            faults.append(fault)
        else:
            labels[name] = label.path
            sources[name] = LabelProvenance(_kind(label, own), label.reader)
    note = "; ".join(faults)
    return replace(candidate, labels=labels, label_provenance=sources, label_note=note)


def _kind(label: ReturnedLabel, own: Path | None) -> LabelKind:
    if label.kind == "prediction":
        return "prediction"
    return "corrected" if own else "given"


def _preferred(labels: Sequence[ReturnedLabel], scan_sha256: str) -> tuple[ReturnedLabel, str]:
    """Of labels of one name a finished one, else the last prediction whose acceptance holds.

    With why it is not used; empty where nothing is known against it.
    """
    finished = [label for label in labels if label.kind == "finished"]
    if finished:
        return finished[0], _several_fault(finished)
    faults = [(label, _void_fault(label, scan_sha256)) for label in reversed(labels)]
    return next((each for each in faults if not each[1]), faults[0])


def _several_fault(finished: Sequence[ReturnedLabel]) -> str:
    """Why none of several finished labels of one name is used; empty where they are equal."""
    if len({source_sha256(Source(label.path)) for label in finished}) < 2:
        return ""
    return f"there are {len(finished)} labels {finished[0].title} that differ: remove all but one"


def _void_fault(label: ReturnedLabel, scan_sha256: str) -> str:
    """Why the acceptance of a prediction is void; empty where it holds."""
    if not label.path.is_file():
        return f"label {label.title} is gone: predict again, and ask a reader again"
    if pair_sha256((scan_sha256, source_sha256(Source(label.path)))) != label.content_sha256:
        return f"label {label.title} or its scan was changed since: ask a reader again"
    return ""


def _fault(label: ReturnedLabel, grid: VoxelGrid, own: Path | None) -> str:
    """Why a label is not used; empty where it is. `own` is the scan's own file of this name."""
    remedy = "correct or remove it"
    check = label_matching.check_label(label.title, label.path, grid)
    if check.fault:
        return f"{check.fault.rstrip('.?')}: {remedy}"
    if not check.classes:
        return f"label {label.title} is empty: {remedy}"
    strange = set(check.classes) - label.classes
    if strange and own:
        strange -= set(label_matching.check_label(label.name, own, grid).classes or ())
    if strange:
        return (
            f"label {label.title} holds {min(strange)}, which is no class of its task: name the"
            " class in the task, or correct the file"
        )
    return ""
