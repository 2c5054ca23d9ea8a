"""Checks of what results say, such as targets and names of roots: none may say who a person is.

Which targets there are, a study declares; nothing else of a table is kept. What is refused here was
declared by mistake. A person's name is not surely distinguishable from other words: it has several
capitalised words, and no two subjects share it. Text of a report may name anybody, and is
distinguished by its length, or by how seldom two scans share a value.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.text import parse_number, parse_vector
from ssl_pipeline.volumes.discovery import Candidate

MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
IDENTIFYING = {
    "a UID": re.compile(r"(?<![\w.])[0-2](?:\.[0-9]+){3,}(?![\w.])"),
    "a date": re.compile(
        r"(?<![\w.])(?:[0-9]{4}([-/.])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\2[0-9]{2,4}"
        rf"|[0-9]{{1,2}}[-. ]*{MONTH}[-. ,]*[0-9]{{2,4}}"
        rf"|(?<![^\W\d_]){MONTH}[-. ]*[0-9]{{1,2}}[-. ,]+(?:19|20)[0-9]{{2}}"
        r"|(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01]))(?![0-9])",
        re.IGNORECASE,
    ),
    "an address": re.compile(r"\S@\S+\.\S"),
    "a number of identity": re.compile(r"^\W*[0-9](?:[ /-]?[0-9]){8,}\W*$"),
    "a person's name": re.compile(r"\w\^\w"),
}
MAX_TEXT = 64  # characters of a target that is no vector
MAX_WORDS = 64  # different values of a target that are no numbers
SCAN_WORDS = ("site", "sequence")  # attributes of a scan that are never a person's name
NAME_WORD = re.compile(r"(?=\S\S)[^\W\d_]+(?:['.-][^\W\d_]+)*\.?")


def check_targets(candidates: Iterable[Candidate]) -> None:
    """Raise UserError where a target, site or sequence may say who a person is, or has two names.

    Two names are letters of another size: `f` and `F` would be two classes, or one that is lost.
    """
    subjects: dict[tuple[str, str], set[str]] = defaultdict(set)
    example: dict[tuple[str, str], Candidate] = {}
    titles: set[str] = set()
    candidates = list(candidates)
    _check_sequence_names(candidates)
    for each in candidates:
        for item in (each.targets | {"site": each.site, "sequence": each.sequence}).items():
            subjects[item].add(each.subject_name or each.relative_path)
            example.setdefault(item, each)
        titles.add(each.root.title)
    _check_titles(titles)
    _check_prose(example)
    for (name, value), people in subjects.items():
        kind = _identifying_kind(value, may_be_name=len(people) == 1 and name not in SCAN_WORDS)
        if kind:
            raise UserError(
                f"`{name}` of scan {example[name, value].id} looks like {kind}, which results"
                " would pass on: do not declare it, or write its values otherwise."
            )
    _check_spelling(subjects)


def _check_titles(titles: Iterable[str]) -> None:
    for title in titles:
        if kind := _identifying_kind(title, may_be_name=False):
            raise UserError(
                "data.roots: the name of a root or table, which may be that of its folder, looks"
                f" like {kind}, which results would pass on: give it another `name`."
            )


def _check_prose(example: Mapping[tuple[str, str], Candidate]) -> None:
    """Raise UserError for a target of free text; the message names a scan, and shows no text."""
    different: dict[str, int] = defaultdict(int)
    for (name, value), scan in example.items():
        if name in SCAN_WORDS or parse_number(value) is not None or parse_vector(value):
            continue
        different[name] += 1
        if len(value) > MAX_TEXT:
            raise UserError(
                f"`{name}` of scan {scan.id} is text of {len(value)} characters, and {MAX_TEXT}"
                " are the most: results would pass it on, so do not declare it, or make findings"
                " of it by `ssl-pipeline findings`."
            )
        if different[name] > MAX_WORDS:
            raise UserError(
                f"`{name}` has more than {MAX_WORDS} different words, so that it is text or names"
                " of people: do not declare it, or write its values as classes or numbers."
            )


def _identifying_kind(value: str, *, may_be_name: bool) -> str:
    """What a value looks like that may say who a person is; empty where it does not."""
    found = next((kind for kind, pattern in IDENTIFYING.items() if pattern.search(value)), "")
    words = [word for word in re.split(r"[\s,_]+", value) if NAME_WORD.fullmatch(word)]
    if not found and may_be_name and sum(word[0].isupper() for word in words) > 1:
        return "a person's name"
    return found


def _check_spelling(values: Iterable[tuple[str, str]]) -> None:
    spelling: dict[tuple[str, str], str] = {}
    for name, value in values:
        other = spelling.setdefault((name, value.casefold()), value)
        if other != value:
            raise UserError(
                f"`{name}` is {other!r} for some scans and {value!r} for others: write it"
                " in one way, for they would be different values."
            )


def _check_sequence_names(candidates: Iterable[Candidate]) -> None:
    """Raise UserError where one sequence has several names, which would be several sequences."""
    spellings: dict[str, dict[str, Candidate]] = {}
    for each in candidates:
        if each.sequence:
            spellings.setdefault(_plain(each.sequence), {}).setdefault(each.sequence, each)
    for names in spellings.values():
        if len(names) > 1:
            ways = ", ".join(f"{name!r} (scan {each.id})" for name, each in names.items())
            raise UserError(
                f"One sequence is named in {len(names)} ways, {ways}: give it one name, in the"
                " column `sequence` of the table or by `sequences` of the root."
            )


def _plain(name: str) -> str:
    """A name without what people write in several ways: `T1`, `t1w` and `T1-weighted` are one."""
    letters = re.sub(r"[\W_]+", "", name.casefold())
    return re.sub(r"(?<=\d)(w|wi|weighted)$", "", letters)
