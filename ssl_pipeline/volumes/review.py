"""Decisions of readers on scans and on pairs of scans, as the inventory honours them.

A decision holds for the content that was seen, and is void once a scan's files hold another. A
rejection holds for any scan; an acceptance lifts what a threshold of `quality` rejected, and never
a file that cannot be read or holds no image. Two scans that a reader found to be of two subjects
are no near duplicates. Where decisions come from: `ssl_pipeline/review`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ssl_pipeline.io.atomic import sha256_json


@dataclass(frozen=True)
class Decision:
    """What a reader decided on one scan."""

    verdict: Literal["accept", "reject"]
    reason: str  # codes, which name nobody
    reader: str  # as the reader signs
    sha256: str  # of the scan's files as they were seen

    @property
    def signature(self) -> str:
        """Whose word it is, and why."""
        return f"by {self.reader} ({self.reason})" if self.reason else f"by {self.reader}"

    @property
    def outcome(self) -> tuple[str, ...]:
        """What decides what becomes of the scan, and what is said of it."""
        return self.verdict, self.reason, self.reader, self.sha256


@dataclass(frozen=True)
class Decisions:
    """All decisions that stand: on scans by code, and pairs of codes that are of two subjects.

    `distinct_pairs` has the hash of what was seen of both (`pair_sha256`).
    """

    scans: Mapping[str, Decision] = field(default_factory=dict)
    distinct_pairs: Mapping[frozenset[str], str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what they decide; empty where there are none."""
        if not self.scans and not self.distinct_pairs:
            return ""
        scans = {code: each.outcome for code, each in self.scans.items()}
        pairs = {"-".join(sorted(pair)): seen for pair, seen in self.distinct_pairs.items()}
        return sha256_json([scans, pairs])


NO_DECISIONS = Decisions()
REJECTED = "rejected in review"  # how the fault of a scan begins that only a reader rejected


def pair_sha256(hashes: Iterable[str]) -> str:
    """The hash of what two scans hold, whichever is named first."""
    return sha256_json(sorted(hashes))
