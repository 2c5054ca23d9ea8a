"""Who is held out: each subject gets one split, and keeps it in every scan.

The table's word goes first, then the study's lists, then a draw by hash. A split that has a list
has nobody else in it, so that a published test set stays what it was.
"""

from collections.abc import Sequence
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.candidates import Candidate
from ssl_pipeline.volumes.dataset import Splits, resolve
from ssl_pipeline.volumes.identity import Fractions, split_of


def deal(candidates: Sequence[Candidate], splits: Splits, study_dir: Path) -> dict[str, str]:
    """The split of every person. Raises UserError where two sources of one rank disagree.

    One who is on no list, where the draw gives them to a split with a list, gets "". The draw is by
    name and not by code, so that it is the same wherever the study is run.
    """
    subjects = {each.person for each in candidates} - {""}
    listed = _listed(splits, study_dir, subjects)
    named = listed | _in_table(candidates)
    free = splits.fractions.model_copy(
        update={name: 0.0 for name in splits.lists if name != "train"}
    )
    return {subject: named.get(subject) or _drawn(subject, splits, free) for subject in subjects}


def _drawn(subject: str, splits: Splits, free: Fractions) -> str:
    split = split_of(subject, free, splits.seed)
    return "" if split in splits.lists else split


def _in_table(candidates: Sequence[Candidate]) -> dict[str, str]:
    named: dict[str, str] = {}
    for each in candidates:
        split = each.row.get("split") if each.row else ""
        if split and each.person and named.setdefault(each.person, split) != split:
            raise UserError(
                f"data.table: subject {each.subject} is in {named[each.person]} and in {split};"
                " all scans of a subject must be in one split."
            )
    return named


def _listed(splits: Splits, study_dir: Path, subjects: set[str]) -> dict[str, str]:
    listed: dict[str, str] = {}
    for name, text in splits.lists.items():
        path = resolve(text, study_dir)
        members = read_list(path)
        if not members.keys() & subjects:
            raise UserError(f"data.splits.lists.{name}: no subject of {path} is among the scans.")
        for subject, line in members.items():
            if listed.setdefault(subject, name) != name:
                raise UserError(
                    f"data.splits.lists: the subject of {path}, line {line}, is in the list of"
                    f" {listed[subject]} too; keep it in one."
                )
    return listed


def read_list(path: Path) -> dict[str, int]:
    """The subjects of a list, each with its line; `#` begins a comment. UserError without it."""
    if not path.is_file():
        raise UserError(f"data.splits.lists: there is no file {path}; correct the path.")
    lines = path.read_text(encoding="utf-8").splitlines()
    named = (line.partition("#")[0].strip() for line in lines)
    return {subject: number for number, subject in enumerate(named, start=1) if subject}
