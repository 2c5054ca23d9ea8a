"""The subject and the split of every scan, from names, voxels and copies together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.volumes.config import Splits
from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.scan_check import ScanInfo
from ssl_pipeline.volumes.subjects.groups import SubjectGroup, group_subjects
from ssl_pipeline.volumes.subjects.splits import assign_splits, strictest_split


@dataclass(frozen=True)
class SubjectAssignment:
    """Of one scan: its subject's code and split, why it may not be used, and what is to be told."""

    subject: str = ""
    split: str = ""
    fault: str = ""
    note: str = ""


def assign_subjects(
    candidates: Sequence[Candidate],
    scan_infos: Sequence[ScanInfo],
    splits: Splits,
    explicit_splits: Mapping[str, str],
    duplicates: Iterable[tuple[int, int]] = (),
    previous_splits: Mapping[str, str] | None = None,
) -> list[SubjectAssignment]:
    """Say it of each candidate; `named` are the splits of persons that somebody says.

    `copies` are pairs of near-duplicates, by number; `before` has the splits of scans that were
    dealt by the same dials, by id. A scan whose own name is for another split than its subject's is
    not used. Raises UserError for a stratum that no scan knows.
    """
    duplicates = list(duplicates)
    groups = group_subjects(candidates, [look.voxel_hash for look in scan_infos], duplicates)
    strata = _strata(groups, candidates, scan_infos, splits.stratify)
    known = previous_splits or {}
    earlier = [
        strictest_split(known[each] for at in group.members if (each := candidates[at].id) in known)
        for group in groups
    ]
    notes = {high: f"near-duplicate of {candidates[low].id}" for low, high in reversed(duplicates)}
    found = [SubjectAssignment()] * len(candidates)
    for group, split in zip(
        groups, assign_splits(groups, explicit_splits, splits, strata, earlier), strict=True
    ):
        for at in group.members:
            found[at] = _assign_member(
                candidates[at], group, split, explicit_splits, notes.get(at, "")
            )
    return found


def _assign_member(
    candidate: Candidate,
    group: SubjectGroup,
    split: str,
    explicit_splits: Mapping[str, str],
    note: str,
) -> SubjectAssignment:
    person, first = candidate.subject_name, next(iter(group.subject_names), "")
    if not first:
        return SubjectAssignment(note=note)
    subject = candidate.code("subject", first)
    own = explicit_splits.get(person, split)
    shared = f"a scanner's visit, voxels or a copy with subject {subject}"
    if own != split:
        fault = f"is named for {own}, and shares {shared} of {split}"
        return SubjectAssignment(
            subject, split, f"{fault}; a split must not know another's scans", note
        )
    joined = f"shares {shared}, and counts as theirs" if person != first else ""
    return SubjectAssignment(subject, split, "", "; ".join(text for text in (note, joined) if text))


def _strata(
    groups: Sequence[SubjectGroup],
    candidates: Sequence[Candidate],
    scan_infos: Sequence[ScanInfo],
    names: Sequence[str],
) -> list[str]:
    """What the first scan of each group is, as far as the fractions are to be met by it."""
    if not names:
        return [""] * len(groups)
    first = [(candidates[group.members[0]], scan_infos[group.members[0]]) for group in groups]
    facts = [
        {
            **each.targets,
            "root": each.root.title,
            "site": each.site,
            "modality": each.modality or look.file_modality,
        }
        for each, look in first
    ]
    known = set().union(*facts)
    for name in names:
        if name not in known:
            raise UserError(
                f"data.splits.stratify: no scan has `{name}`. {suggest_name(name, known)}"
            )
    return ["\n".join(each.get(name, "") for name in names) for each in facts]
