"""Splits of subjects: train, val or test, from table, lists, or a draw by hash.

The table goes first, then the study's lists, then a draw by hash. A split that has a list has
no other subject in it, so that a published test set stays what it was. Draws are by name and not by
code, so that they are the same wherever the study is run; nobody moves when scans are added, but
one whose scan turns out to be another's.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.text import normalize_word, read_text
from ssl_pipeline.volumes.config import Splits, resolve_path
from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.metadata_rules import split_of_draw, uniform_draw
from ssl_pipeline.volumes.subjects.groups import SubjectGroup

# Of several that one subject could have, the first counts.
SPLITS_BY_STRICTNESS = ("test", "val", "train", "")
COMMENT = re.compile(r"(^| )#.*")
GOLDEN_RATIO = (5**0.5 - 1) / 2  # steps of it, modulo 1, fill the interval evenly (Weyl)


def read_explicit_splits(
    candidates: Sequence[Candidate], splits: Splits, study_dir: Path
) -> dict[str, str]:
    """The split of every subject that the table or a list names; the table goes first.

    Raises UserError where two sources of one rank disagree, and for a list that cannot be used.
    """
    names = {each.subject_name for each in candidates} - {""}
    return _splits_from_lists(splits, study_dir, names) | _splits_from_table(candidates)


def assign_splits(
    groups: Sequence[SubjectGroup],
    explicit_splits: Mapping[str, str],
    splits: Splits,
    strata: Sequence[str] = (),
    previous_splits: Sequence[str | None] = (),
) -> list[str]:
    """The split of each group.

    It is "" for a group without a name, and for one on no list whose draw leads to a split that has
    a list. Of several splits that a group's names call for, it gets the first of
    SPLITS_BY_STRICTNESS; its draw is the lowest of its names', and so leans to test. `strata` says
    within which groups the fractions are to be met, and `previous_splits` what a group had before,
    None where it is new; both matter to `splits.stratify` alone.
    """
    free = splits.fractions.model_copy(
        update={name: 0.0 for name in splits.lists if name != "train"}
    )
    explicit = [[explicit_splits.get(name, "") for name in each.subject_names] for each in groups]
    assigned = [strictest_split(each) or "" for each in explicit]
    left = [at for at, group in enumerate(groups) if group.subject_names and not assigned[at]]
    draws = {
        at: min(uniform_draw(name, splits.seed) for name in groups[at].subject_names) for at in left
    }
    drawn = {at: split_of_draw(draw, free) for at, draw in draws.items()}
    if splits.stratify:
        drawn = _stratified_splits(
            draws, strata, previous_splits, splits.seed, lambda draw: split_of_draw(draw, free)
        )
    for at, split in drawn.items():
        assigned[at] = "" if split in splits.lists else split
    return assigned


def strictest_split(splits: Iterable[str]) -> str | None:
    """Of several splits that one subject could have, the one furthest from training.

    None where there is none.
    """
    return min(splits, key=SPLITS_BY_STRICTNESS.index, default=None)


def _stratified_splits(
    draws: Mapping[int, float],
    strata: Sequence[str],
    previous_splits: Sequence[str | None],
    seed: int,
    split_of: Callable[[float], str],
) -> dict[int, str]:
    """The split of each drawn group; within a stratum, draws are evenly spaced.

    Groups that have a split keep it. The new ones come in the order of their own draws.
    """
    assigned = {at: split for at in draws if (split := previous_splits[at]) is not None}
    number = Counter(strata[at] for at in assigned)
    for at in sorted(draws.keys() - assigned, key=lambda at: draws[at]):
        start = uniform_draw(strata[at], seed)
        assigned[at] = split_of((start + number[strata[at]] * GOLDEN_RATIO) % 1)
        number[strata[at]] += 1
    return assigned


def _splits_from_table(candidates: Sequence[Candidate]) -> dict[str, str]:
    named: dict[str, str] = {}
    for each in candidates:
        split = each.row.get("split") if each.row else ""
        if split and each.subject_name and named.setdefault(each.subject_name, split) != split:
            raise UserError(
                f"data.table: subject {each.subject} is in {named[each.subject_name]} and in"
                f" {split}; all scans of a subject must be in one split."
            )
    return named


def _splits_from_lists(splits: Splits, study_dir: Path, subject_names: set[str]) -> dict[str, str]:
    listed: dict[str, str] = {}
    for name, text in splits.lists.items():
        path = resolve_path(text, study_dir)
        members = read_subject_list(path, subject_names)
        unknown = [str(line) for person, line in members.items() if person not in subject_names]
        if unknown or not members:
            lines = ", ".join(unknown[:10]) or "none"
            raise UserError(
                f"data.splits.lists.{name}: {len(unknown)} of {len(members)} subjects of {path} are"
                f" not among the scans (line {lines}): write each as the `subject` rule or the"
                " table gives it, or take it off the list."
            )
        for person, line in members.items():
            if listed.setdefault(person, name) != name:
                raise UserError(
                    f"data.splits.lists: the subject of {path}, line {line}, is in the list of"
                    f" {listed[person]} too; keep it in one."
                )
    return listed


def read_subject_list(path: Path, subject_names: Collection[str]) -> dict[str, int]:
    """The subjects of a list, each with its line. Raises UserError where it cannot be read.

    `#` begins a comment at the start of a line or after a space, unless the whole line is one of
    `subject_names`.
    """
    if not path.is_file():
        raise UserError(f"data.splits.lists: there is no file {path}; correct the path.")
    named = [normalize_word(line) for line in read_text(path).split("\n")]
    entries = [
        line if line in subject_names else normalize_word(COMMENT.sub("", line)) for line in named
    ]
    return {subject: number for number, subject in enumerate(entries, start=1) if subject}
