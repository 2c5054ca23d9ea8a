"""Decisions of readers on scans, pairs of scans, labels and predictions.

A decision holds for the content that was seen, and is void once the files hold another. A rejection
holds for any scan; an acceptance lifts what a threshold of `quality` rejected, and never a file
that cannot be read or holds no image. Two scans that a reader found to be of two subjects do not
join them. A label that was rejected is not used for its scan; one that was accepted is, whatever
grid it lies on. Where decisions come from: `ssl_pipeline/review`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.volumes.pseudonyms import Coder


@dataclass(frozen=True)
class Decision:
    """What a reader decided on one scan, or on a label or prediction of it."""

    verdict: Literal["accept", "reject"]
    reason: str  # codes, which name nobody
    reader: str  # as the reader signs
    sha256: str  # of the scan's files as they were seen, or `pair_sha256` of scan and overlay

    @property
    def signature(self) -> str:
        """Whose word it is, and why."""
        return f"by {self.reader} ({self.reason})" if self.reason else f"by {self.reader}"

    @property
    def outcome(self) -> tuple[str, ...]:
        """What decides what becomes of what was seen, and what is said of it."""
        return self.verdict, self.reason, self.reader, self.sha256


@dataclass(frozen=True)
class Decisions:
    """All decisions that stand: on scans by code, and pairs of codes that are of two subjects.

    `distinct_pairs` has the hash of what was seen of both (`pair_sha256`). Those on labels and
    predictions are by `label_item` and `prediction_item`.
    """

    scans: Mapping[str, Decision] = field(default_factory=dict)
    distinct_pairs: Mapping[frozenset[str], str] = field(default_factory=dict)
    labels: Mapping[str, Decision] = field(default_factory=dict)
    predictions: Mapping[str, Decision] = field(default_factory=dict)

    def are_distinct(self, hashes: Mapping[str, str]) -> bool:
        """Whether a reader found two scans, with the hash of each by code, to be of two people."""
        seen = self.distinct_pairs.get(frozenset(hashes))
        return seen is not None and seen == pair_sha256(hashes.values())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what they decide for the inventory; empty where that is nothing."""
        if not self.scans and not self.distinct_pairs and not self.labels:
            return ""
        scans = {code: each.outcome for code, each in self.scans.items()}
        pairs = {"-".join(sorted(pair)): seen for pair, seen in self.distinct_pairs.items()}
        labels = {item: each.outcome for item, each in self.labels.items()}
        return sha256_json([scans, pairs, labels])


NO_DECISIONS = Decisions()
REJECTED = "rejected in review"  # how the fault of a scan begins that only a reader rejected


def pair_sha256(hashes: Iterable[str]) -> str:
    """The hash of what two scans hold, or a scan and its overlay, whichever is named first."""
    return sha256_json(sorted(hashes))


def label_item(scan: str, name: str, code: Coder) -> str:
    """By which readers are asked about a scan's label of this name."""
    return f"{scan}-{code('label', name)}"


def prediction_item(scan: str, sha256: str, code: Coder) -> str:
    """By which readers are asked about a prediction for a scan, a file of this hash."""
    return f"{scan}-{code('prediction', sha256)}"
