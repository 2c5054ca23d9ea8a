"""Whose scans belong together: one subject, whatever number of names it has.

Scans of one person are one subject. So are scans of two names that come from one study of a
scanner, hold equal voxels, or are copies of one another: held apart, one of them would be learned
from and the other scored. A scan without a name joins the subject that it is linked with.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ssl_pipeline.volumes.candidates import Candidate

NAMES_OF_ONE = 3  # PatientIDs of one visit; an anonymiser writes one constant for many people


@dataclass(frozen=True)
class Group:
    """The scans of one subject by their numbers, and the names that it has, both by place."""

    members: tuple[int, ...]
    persons: tuple[str, ...]


def grouped(
    candidates: Sequence[Candidate],
    pixels: Sequence[str] = (),
    copies: Iterable[tuple[int, int]] = (),
) -> list[Group]:
    """The groups of all candidates, by place (union-find).

    `pixels` has a hash of each scan's voxels, empty where there is none; `copies` are pairs of near
    duplicates.
    """
    links = [*copies]
    persons = [each.person for each in candidates]
    for words in (persons, _visits(candidates), pixels):
        first: dict[str, int] = {}
        links += [(first.setdefault(word, at), at) for at, word in enumerate(words) if word]
    above = list(range(len(candidates)))
    for pair in links:
        low, high = sorted(_top(above, each) for each in pair)
        above[high] = low
    members: dict[int, list[int]] = {}
    for at in range(len(candidates)):
        members.setdefault(_top(above, at), []).append(at)
    return [
        Group(
            tuple(each),
            tuple(dict.fromkeys(candidates[at].person for at in each if candidates[at].person)),
        )
        for each in members.values()
    ]


def _visits(candidates: Sequence[Candidate]) -> list[str]:
    """The visit of each scan; none where headers of so many patients share it that it is none."""
    patients: dict[str, set[str]] = {}
    for each in candidates:
        patients.setdefault(each.source.study, set()).add(each.source.patient)
    visits = [each.source.study for each in candidates]
    return [visit if len(patients[visit]) <= NAMES_OF_ONE else "" for visit in visits]


def _top(above: list[int], at: int) -> int:
    while above[at] != at:
        above[at] = above[above[at]]
        at = above[at]
    return at
