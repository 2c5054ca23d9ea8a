"""Grouping of scans by subject, whatever number of names a subject has.

Scans of one person are one subject. So are scans of two names that come from one study of a
scanner, hold equal voxels, or are near duplicates: in two splits, one of them would be trained on
and the other evaluated. A scan without a name joins the subject that it is linked with. Two scans
that a reader found to be of two people link nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import scipy

from ssl_pipeline.volumes.discovery import Candidate

# names of one visit's person; an anonymiser writes one constant UID for many people
MAX_NAMES_PER_VISIT = 3


@dataclass(frozen=True)
class SubjectGroup:
    """The scans of one subject by position, and the subject's names."""

    members: tuple[int, ...]
    subject_names: tuple[str, ...]


def group_subjects(
    candidates: Sequence[Candidate],
    voxel_hashes: Sequence[str] = (),
    pairs: Iterable[tuple[int, int]] = (),
) -> list[SubjectGroup]:
    """Group all candidates by subject (union-find), in their order.

    `voxel_hashes` has a hash of each scan's voxels, empty where there is none; `pairs` are those of
    one person, such as near duplicates and `visit_pairs`.
    """
    links = [*pairs]
    names = [each.subject_name for each in candidates]
    for words in (names, _visits_of_nameless(candidates), voxel_hashes):
        first: dict[str, int] = {}
        links += [(first.setdefault(word, at), at) for at, word in enumerate(words) if word]
    sets = scipy.cluster.hierarchy.DisjointSet(range(len(candidates)))
    for low, high in links:
        sets.merge(low, high)
    members: dict[int, list[int]] = {}
    for at in range(len(candidates)):
        members.setdefault(sets[at], []).append(at)
    return [
        SubjectGroup(tuple(each), tuple(dict.fromkeys(names[at] for at in each if names[at])))
        for each in members.values()
    ]


def visit_pairs(candidates: Sequence[Candidate]) -> list[tuple[int, int]]:
    """Pairs of scans of two names, by position, that come from one study of a scanner.

    A study has a pair for any two of its names, of the first scan of each.
    """
    first: dict[str, dict[str, int]] = {}
    for at, (each, visit) in enumerate(zip(candidates, _visits(candidates), strict=True)):
        if visit and each.subject_name:
            first.setdefault(visit, {}).setdefault(each.subject_name, at)
    return [pair for names in first.values() for pair in combinations(names.values(), 2)]


def shared_uids(candidates: Sequence[Candidate], uids: Sequence[str]) -> dict[str, int]:
    """The UIDs, one of each scan, that too many people share to be one visit's, and how many.

    People are counted by the study's own rule or by PatientID, whichever gives more.
    """
    subjects: dict[str, set[str]] = {}
    patients: dict[str, set[str]] = {}
    for each, uid in zip(candidates, uids, strict=True):
        subjects.setdefault(uid, set()).add(each.subject_name)
        patients.setdefault(uid, set()).add(each.source.patient_id)
    sizes = {uid: max(len(subjects[uid]), len(patients[uid])) for uid in subjects if uid}
    return {uid: size for uid, size in sizes.items() if size > MAX_NAMES_PER_VISIT}


def _visits(candidates: Sequence[Candidate]) -> list[str]:
    """The study UID of each scan; empty where too many people share it."""
    uids = [each.source.study_uid for each in candidates]
    shared = shared_uids(candidates, uids)
    return ["" if uid in shared else uid for uid in uids]


def _visits_of_nameless(candidates: Sequence[Candidate]) -> list[str]:
    """The study UID of each scan without a name, and of those of the first name that it has."""
    visits = _visits(candidates)
    first: dict[str, str] = {}
    for each, visit in zip(candidates, visits, strict=True):
        if each.subject_name:
            first.setdefault(visit, each.subject_name)
    return [
        visit if each.subject_name in ("", first.get(visit)) else ""
        for each, visit in zip(candidates, visits, strict=True)
    ]
