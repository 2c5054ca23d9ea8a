"""Log of test-set accesses: which configurations a task was scored with, and since when.

A test set is unbiased once. Whoever changes a setting after an access selects by the test set, so
each configuration with which a task was scored is logged when it is first used. The log belongs to
the subjects and not to a study, which may be renamed, copied or removed: so it is kept in the
private folder, beside the salt of the subjects' codes. What it says of a task is copied beside the
task's results.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ssl_pipeline.io.locks import exclusive_lock
from ssl_pipeline.io.records import Record, RecordPart, read_record, write_record

ACCESS_LOG = "test_access.json"


class TestAccess(RecordPart):
    """The first use of one configuration to score subjects of a split."""

    __test__ = False  # no class of tests
    key: str  # hash of everything that determines the scores
    split: str
    first: str  # UTC, ISO 8601


class AccessLog(Record):
    """All test-set accesses of a task, the first one first."""

    format: Literal[1] = 1
    accesses: tuple[TestAccess, ...]


class SubjectAccess(TestAccess):
    """A test access as the private folder keeps it: of whom, and for which question."""

    scope: str  # the stage, and the trial of an ablation
    question: str  # hash of what was predicted
    subjects: tuple[str, ...]  # codes


class SubjectAccessLog(Record):
    """All test-set accesses of all studies that share a private folder, the first one first."""

    format: Literal[1] = 1
    accesses: tuple[SubjectAccess, ...]


@dataclass(frozen=True)
class ScoredSubjects:
    """Whom an evaluation scores, for which question, and the private folder that knows them."""

    private_folder: Path
    scope: str
    question: str
    subjects: tuple[str, ...]

    def includes(self, access: SubjectAccess) -> bool:
        """Whether an access scored any of these subjects for this question."""
        same = (access.scope, access.question) == (self.scope, self.question)
        return same and not set(self.subjects).isdisjoint(access.subjects)


def record_test_access(
    out: Path, split: str, key: str, scored: ScoredSubjects | None = None
) -> None:
    """Log that the configuration with this key scores subjects of `split`, if it is new.

    Where the `scored` subjects are known, so are earlier accesses to them by other studies.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = TestAccess(key=key, split=split, first=now)
    known = read_test_accesses(out)
    accesses = _exchange_accesses(scored, (*known, new)) if scored else _each_once((*known, new))
    if accesses != known:
        write_record(out / ACCESS_LOG, AccessLog(accesses=accesses))


def _exchange_accesses(
    scored: ScoredSubjects, accesses: tuple[TestAccess, ...]
) -> tuple[TestAccess, ...]:
    """Add accesses to the log of the private folder; returns all that it has of these subjects."""
    path = scored.private_folder / ACCESS_LOG
    with exclusive_lock(scored.private_folder / ".lock"):  # two studies may score at once
        logged = _read_subject_accesses(path)
        known = [access for access in logged if scored.includes(access)]
        every = _each_once((*(_without_subjects(access) for access in known), *accesses))
        new = [access for access in every if all(access.key != each.key for each in known)]
        added = [
            SubjectAccess(
                **dict(access),
                scope=scored.scope,
                question=scored.question,
                subjects=scored.subjects,
            )
            for access in new
        ]
        if added:
            write_record(path, SubjectAccessLog(accesses=(*logged, *added)))
    return every


def _each_once(accesses: Iterable[TestAccess]) -> tuple[TestAccess, ...]:
    """The first access of each configuration, in the order of time."""
    first: dict[str, TestAccess] = {}
    for access in sorted(accesses, key=lambda access: access.first):
        first.setdefault(access.key, access)
    return tuple(first.values())


def _without_subjects(access: SubjectAccess) -> TestAccess:
    return TestAccess(key=access.key, split=access.split, first=access.first)


def _read_subject_accesses(path: Path) -> tuple[SubjectAccess, ...]:
    if not path.exists():
        return ()
    return read_record(SubjectAccessLog, path, "put it back from a backup").accesses


def read_test_accesses(out: Path) -> tuple[TestAccess, ...]:
    """All test-set accesses of a task, the first one first."""
    path = out / ACCESS_LOG
    if not path.exists():
        return ()
    return read_record(AccessLog, path, "delete it only with all outputs of the study").accesses
