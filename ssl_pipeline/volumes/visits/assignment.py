"""Assignment of a visit and a frame to every scan.

A visit and a frame are coded with their subject, so that none spans two people and no UID is in any
result. A scan whose subject is unknown has neither.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.subjects.assignment import SubjectAssignment
from ssl_pipeline.volumes.subjects.groups import shared_uids


@dataclass(frozen=True)
class VisitAssignment:
    """The codes of one scan's visit and frame, empty where it has none, and a note."""

    visit: str = ""
    frame: str = ""
    note: str = ""


def assign_visits(
    candidates: Sequence[Candidate], subjects: Sequence[SubjectAssignment]
) -> list[VisitAssignment]:
    """The visit and frame of each candidate; a UID that many people share is neither."""
    visits_shared = shared_uids(candidates, [each.source.study_uid for each in candidates])
    frames_shared = shared_uids(candidates, [each.source.frame_uid for each in candidates])
    return [
        _assign(each, of.subject, visits_shared.keys(), frames_shared)
        for each, of in zip(candidates, subjects, strict=True)
    ]


def _assign(
    candidate: Candidate,
    subject: str,
    visits_shared: Iterable[str],
    frames_shared: dict[str, int],
) -> VisitAssignment:
    if not subject:
        return VisitAssignment()
    visit, frame = candidate.visit_name, candidate.frame_name
    is_wiped = frame in frames_shared
    return VisitAssignment(
        "" if not visit or visit in visits_shared else candidate.code("visit", subject, visit),
        "" if not frame or is_wiped else candidate.code("frame", subject, frame),
        f"{frames_shared[frame]} subjects share its FrameOfReferenceUID, which therefore says"
        " nothing of where it lies"
        if is_wiped
        else "",
    )
