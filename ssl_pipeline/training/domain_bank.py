"""Domains, and their banks: held-out places at which all encoders of a family are measured.

A domain is all scans that share root, site and protocol, or other attributes. Its bank is frozen
once: each place is a block of a stored volume, known by the volume's hash, and with the views, the
seed and the number of its sample also the crops, the masks and the augmentation are the same for
every encoder. So what two encoders lose there is paired, however far apart they were measured.
Imports no torch.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from ssl_pipeline.io.records import Record, RecordPart
from ssl_pipeline.store.catalog import Entry, scan_attribute
from ssl_pipeline.types import Triple
from ssl_pipeline.views.config import Views
from ssl_pipeline.volumes.inventory import Scan

HELD_OUT_SPLIT = "val"
TOTAL = "total"  # the weighted sum of the losses of all terms
NO_LOSS_OF_DATA = frozenset({"retain"})  # terms that compare with another encoder
BANK_SEED = 0


class Place(RecordPart):
    """A block of voxels of a held-out volume."""

    volume: str  # SHA-256 of its stored voxels
    subject: int  # within the bank, from 0
    start: Triple  # first voxel (z, y, x)


class DomainBank(Record):
    """The places of a domain; the sample of a place has its number in the list."""

    format: Literal[1] = 1
    domain: dict[str, str]  # attribute to value
    views: Views
    patch_voxels: Triple
    seed: int = BANK_SEED
    places: tuple[Place, ...]

    @property
    def title(self) -> str:
        """The domain in words."""
        return domain_title(self.domain)

    def entries(self, catalog_entries: Iterable[Entry]) -> list[Entry]:
        """The stored volumes of its places that are still held out here."""
        volumes = {place.volume for place in self.places}
        return [
            entry
            for entry in catalog_entries
            if entry.sha256 in volumes and entry.split == HELD_OUT_SPLIT
        ]


class DomainMeasure(RecordPart):
    """An encoder on the bank of a domain."""

    bank_sha256: str
    # By term, and of their sum TOTAL: one a place, None where it is not defined.
    losses: dict[str, tuple[float | None, ...]]
    retrieval_accuracy: float | None  # of the other view of a place among those of all places
    rankme: float | None  # effective rank of the pooled embeddings
    # By the name of a target that is predicted: R², balanced accuracy or cosine.
    prediction_scores: dict[str, float | None] = Field({})

    def subject_losses(self, bank: DomainBank, term: str = TOTAL) -> dict[int, float]:
        """The mean loss of a term over the places of each subject that has any."""
        found: dict[int, list[float]] = {}
        for place, loss in zip(bank.places, self.losses[term], strict=True):
            if loss is not None:
                found.setdefault(place.subject, []).append(loss)
        return {subject: sum(own) / len(own) for subject, own in found.items()}


def domain_of(entry: Entry | Scan, attributes: Sequence[str]) -> dict[str, str]:
    """The domain of a scan by these attributes: of each its value, empty where it is unknown."""
    return {name: scan_attribute(entry, name) for name in attributes}


def domain_title(domain: dict[str, str]) -> str:
    """A domain in words, such as `ct, site a`."""
    return ", ".join(value for value in domain.values() if value) or "unknown"


def held_out_by_domain(
    entries: Iterable[Entry], attributes: Sequence[str]
) -> list[tuple[dict[str, str], list[Entry]]]:
    """The held-out volumes of each domain, in the order of its values."""
    found: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        if entry.split == HELD_OUT_SPLIT:
            found.setdefault(tuple(domain_of(entry, attributes).values()), []).append(entry)
    return [(dict(zip(attributes, values, strict=True)), found[values]) for values in sorted(found)]
