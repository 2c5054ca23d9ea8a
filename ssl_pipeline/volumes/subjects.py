"""The subject and the split of every scan, from names, voxels and copies together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ssl_pipeline.errors import UserError, nearest
from ssl_pipeline.volumes.candidates import Candidate
from ssl_pipeline.volumes.dataset import Splits
from ssl_pipeline.volumes.groups import Group, grouped
from ssl_pipeline.volumes.inspection import Look
from ssl_pipeline.volumes.splits import deal, strictest


@dataclass(frozen=True)
class Whose:
    """Of one scan: its subject's code and split, why it may not be used, and what is to be told."""

    subject: str = ""
    split: str = ""
    fault: str = ""
    note: str = ""


def whose(
    candidates: Sequence[Candidate],
    looks: Sequence[Look],
    splits: Splits,
    named: Mapping[str, str],
    copies: Iterable[tuple[int, int]] = (),
    before: Mapping[str, str] | None = None,
) -> list[Whose]:
    """Say it of each candidate; `named` are the splits of persons that somebody says.

    `copies` are pairs of near-duplicates, by number; `before` has the splits of scans that were
    dealt by the same dials, by id. A scan whose own name is for another split than its subject's is
    not used. Raises UserError for a stratum that no scan knows.
    """
    copies = list(copies)
    groups = grouped(candidates, [look.pixels for look in looks], copies)
    strata = _strata(groups, candidates, looks, splits.stratify)
    known = before or {}
    earlier = [
        strictest(known[each] for at in group.members if (each := candidates[at].id) in known)
        for group in groups
    ]
    notes = {high: f"near-duplicate of {candidates[low].id}" for low, high in reversed(copies)}
    found = [Whose()] * len(candidates)
    for group, split in zip(groups, deal(groups, named, splits, strata, earlier), strict=True):
        for at in group.members:
            found[at] = _of_member(candidates[at], group, split, named, notes.get(at, ""))
    return found


def _of_member(
    candidate: Candidate, group: Group, split: str, named: Mapping[str, str], note: str
) -> Whose:
    person, first = candidate.person, next(iter(group.persons), "")
    if not first:
        return Whose(note=note)
    subject = candidate.code("subject", first)
    own = named.get(person, split)
    shared = f"a scanner's visit, voxels or a copy with subject {subject}"
    if own != split:
        fault = f"is named for {own}, and shares {shared} of {split}"
        return Whose(subject, split, f"{fault}; a split must not know another's scans", note)
    joined = f"shares {shared}, and counts as theirs" if person != first else ""
    return Whose(subject, split, "", "; ".join(text for text in (note, joined) if text))


def _strata(
    groups: Sequence[Group],
    candidates: Sequence[Candidate],
    looks: Sequence[Look],
    names: Sequence[str],
) -> list[str]:
    """What the first scan of each group is, as far as the fractions are to be met by it."""
    if not names:
        return [""] * len(groups)
    first = [(candidates[group.members[0]], looks[group.members[0]]) for group in groups]
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
            raise UserError(f"data.splits.stratify: no scan has `{name}`. {nearest(name, known)}")
    return ["\n".join(each.get(name, "") for name in names) for each in facts]
