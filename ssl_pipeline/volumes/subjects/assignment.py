"""Assignment of a subject and a split to every scan, from names, voxels and duplicates."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.volumes.config import Splits
from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.pseudonyms import Origin
from ssl_pipeline.volumes.review import NO_DECISIONS, Decisions
from ssl_pipeline.volumes.scan_check import ScanInfo
from ssl_pipeline.volumes.subjects.groups import (
    SubjectGroup,
    group_subjects,
    shared_uids,
    visit_pairs,
)
from ssl_pipeline.volumes.subjects.splits import assign_splits, strictest_split


@dataclass(frozen=True)
class SubjectAssignment:
    """The subject's code and split of one scan, why it may not be used, and a note.

    `copy_of` is the scan of which it is a near duplicate, `visit_of` one of another name whose
    visit it shares; readers may have found either to be of another subject.
    """

    subject: str = ""
    split: str = ""
    fault: str = ""
    note: str = ""
    copy_of: str = ""
    visit_of: str = ""


def assign_subjects(
    candidates: Sequence[Candidate],
    scan_infos: Sequence[ScanInfo],
    splits: Splits,
    explicit_splits: Mapping[str, str],
    duplicates: Iterable[tuple[int, int]] = (),
    previous_splits: Mapping[str, str] | None = None,
    decisions: Decisions = NO_DECISIONS,
) -> list[SubjectAssignment]:
    """Assign a subject and a split to each candidate.

    `explicit_splits` are those of table and lists, by the subject's name; `duplicates` are pairs of
    near duplicates, by position; `previous_splits` has the splits that the same settings gave
    earlier, by the scan's id; `decisions` of readers tell pairs apart. A scan whose own name is
    listed for another split than its subject's is not used. Raises UserError for a stratum that no
    scan knows.
    """

    def is_joined(pair: tuple[int, int]) -> bool:
        hashes = {candidates[at].id: scan_infos[at].sha256 for at in pair}
        return not decisions.are_distinct(hashes)

    duplicates, visits = list(duplicates), visit_pairs(candidates)
    copies = [pair for pair in duplicates if is_joined(pair)]
    joined = {*copies, *filter(is_joined, visits)}
    groups = group_subjects(candidates, [info.voxel_hash for info in scan_infos], joined)
    strata = _strata(groups, candidates, scan_infos, splits.stratify)
    known = previous_splits or {}
    earlier = [
        strictest_split(known[each] for at in group.members if (each := candidates[at].id) in known)
        for group in groups
    ]
    copy_of = _earlier_scans(candidates, duplicates, joined)
    visit_of = _earlier_scans(candidates, visits, joined)
    notes = _notes(candidates, _earlier_scans(candidates, copies, copies))
    found = [SubjectAssignment()] * len(candidates)
    for group, split in zip(
        groups, assign_splits(groups, explicit_splits, splits, strata, earlier), strict=True
    ):
        for at in group.members:
            member = _assign_member(
                candidates[at], group, split, explicit_splits, notes.get(at, "")
            )
            found[at] = replace(member, copy_of=copy_of.get(at, ""), visit_of=visit_of.get(at, ""))
    return found


def assigned_origins(
    candidates: Sequence[Candidate], subjects: Sequence[SubjectAssignment]
) -> Iterator[Origin]:
    """Where all candidates lie, with the codes of their subjects."""
    for candidate, assigned in zip(candidates, subjects, strict=True):
        yield replace(candidate.origin, subject=assigned.subject)


def _earlier_scans(
    candidates: Sequence[Candidate],
    pairs: Sequence[tuple[int, int]],
    joined: Collection[tuple[int, int]],
) -> dict[int, str]:
    """The first scan that each is paired with, by position; of those that join it, if any do."""
    found: dict[int, str] = {}
    for low, high in sorted(pairs, key=lambda pair: pair not in joined):
        found.setdefault(high, candidates[low].id)
    return found


def _notes(candidates: Sequence[Candidate], originals: Mapping[int, str]) -> dict[int, str]:
    """What is to be said of scans, by position: a copy of another, a study UID of many people."""
    copies = {at: f"near-duplicate of {original}" for at, original in originals.items()}
    sizes = shared_uids(candidates, [each.source.study_uid for each in candidates])
    shared = {
        at: f"{sizes[each.source.study_uid]} subjects share its StudyInstanceUID, which therefore"
        " is no visit and joins none of them"
        for at, each in enumerate(candidates)
        if each.source.study_uid in sizes
    }
    similar = _similar_name_notes(candidates)
    return {
        at: "; ".join(text for text in (copies.get(at), shared.get(at), similar.get(at)) if text)
        for at in (*copies, *shared, *similar)
    }


def _similar_name_notes(candidates: Sequence[Candidate]) -> dict[int, str]:
    """A note on each scan whose subject is called as another but for case or leading zeros."""
    first: dict[str, Candidate] = {}
    notes = {}
    for at, each in enumerate(candidates):
        if not each.subject_name:
            continue
        other = first.setdefault(each.subject_name.casefold().lstrip("0"), each)
        if other.subject_name != each.subject_name:
            notes[at] = (
                f"its subject is called as that of {other.id}, but for letter case or leading"
                " zeros: write one person in one way"
            )
    return notes


def _assign_member(
    candidate: Candidate,
    group: SubjectGroup,
    split: str,
    explicit_splits: Mapping[str, str],
    note: str,
) -> SubjectAssignment:
    name, first = candidate.subject_name, next(iter(group.subject_names), "")
    if not first:
        return SubjectAssignment(note=note)
    subject = candidate.code("subject", first)
    own = explicit_splits.get(name, split)
    shared = f"a scanner's visit, voxels or a copy with subject {subject}"
    if own != split:
        fault = f"is named for {own}, and shares {shared} of {split}"
        return SubjectAssignment(
            subject, split, f"{fault}; a split must not know another's scans", note
        )
    joined = f"shares {shared}, and counts as theirs" if name != first else ""
    return SubjectAssignment(subject, split, "", "; ".join(text for text in (note, joined) if text))


def _strata(
    groups: Sequence[SubjectGroup],
    candidates: Sequence[Candidate],
    scan_infos: Sequence[ScanInfo],
    names: Sequence[str],
) -> list[str]:
    """The stratum of each group, from the attributes of its first scan."""
    if not names:
        return [""] * len(groups)
    first = [(candidates[group.members[0]], scan_infos[group.members[0]]) for group in groups]
    facts = [
        {
            **each.targets,
            "root": each.root.title,
            "site": each.site,
            "modality": info.file_modality or each.modality,
        }
        for each, info in first
    ]
    known = {name for each in facts for name, value in each.items() if value}
    for name in names:
        if name not in known:
            raise UserError(
                f"data.splits.stratify: no scan has `{name}`. {suggest_name(name, known)}"
            )
    return ["\n".join(each.get(name, "") for name in names) for each in facts]
