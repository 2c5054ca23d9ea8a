"""Whether new scans are unlike those that an encoder knows, by domain and by what is measured.

Rows are subjects: scans of one person are averaged, for they are not independent. The p-value is
that of a permutation test (`evaluation.statistics.two_sample`), with Holm's correction for all
domains and measures, so that one run finds a drift where there is none in at most the level asked
for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.robustness.feature_analysis import neighbour_distance
from ssl_pipeline.evaluation.statistics.intervals import MIN_SUBJECTS, holm_correction
from ssl_pipeline.evaluation.statistics.two_sample import energy_p_value
from ssl_pipeline.preprocess.plan import STORED_AXES, stored_order
from ssl_pipeline.volumes.inventory import Scan

HEADERS = (
    *(f"spacing {axis} mm" for axis in STORED_AXES),
    *(f"extent {axis} mm" for axis in STORED_AXES),
    "bytes a voxel",  # of its files: the type of numbers, and how well they compress
)


@dataclass(frozen=True)
class MeasuredScans:
    """What was measured of scans: `values` (scans, dim), and the subject and domain of each."""

    values: NDArray[np.float64]
    subjects: Sequence[str]
    domains: Sequence[str]

    @property
    def n_subjects(self) -> int:
        """Number of different subjects."""
        return len(set(self.subjects))

    def of_domain(self, domain: str) -> "MeasuredScans":
        """The scans of one domain."""
        rows = [row for row, name in enumerate(self.domains) if name == domain]
        return MeasuredScans(
            self.values[rows], [self.subjects[row] for row in rows], [domain] * len(rows)
        )

    def reference_for(self, domain: str) -> "MeasuredScans":
        """The scans of a domain; those of all domains where it has too few subjects to compare."""
        own = self.of_domain(domain)
        return own if own.n_subjects >= MIN_SUBJECTS else self

    def by_subject(self) -> NDArray[np.float64]:
        """Mean values (subjects, dim), in the order of subjects' names."""
        names, rows = np.unique(np.array(self.subjects), return_inverse=True)
        total = np.zeros((len(names), self.values.shape[1]))
        np.add.at(total, rows, self.values)
        mean: NDArray[np.float64] = total / np.bincount(rows)[:, None]
        return mean


@dataclass(frozen=True)
class DriftTest:
    """One measure in one domain; both p-values are None where there are too few subjects."""

    domain: str
    measure: str
    new_subjects: int
    known_subjects: int
    p_value: float | None
    corrected_p_value: float | None = None

    def is_drift(self, level: float) -> bool:
        """Whether the new scans are unlike the known ones, at this level of all tests."""
        return self.corrected_p_value is not None and self.corrected_p_value <= level


def drift_tests(
    samples: Mapping[str, tuple[MeasuredScans, MeasuredScans]], rng: np.random.Generator
) -> list[DriftTest]:
    """Tests of new against known scans in every domain of new ones, by the measure's name."""
    pairs = [
        (domain, measure, new.of_domain(domain), known.reference_for(domain))
        for measure, (new, known) in samples.items()
        for domain in sorted(set(new.domains))
    ]
    p_values = [_p_value(new, known, rng) for _, _, new, known in pairs]
    corrected = iter(holm_correction([p for p in p_values if p is not None]))
    return [
        DriftTest(
            domain=domain,
            measure=measure,
            new_subjects=new.n_subjects,
            known_subjects=known.n_subjects,
            p_value=p,
            corrected_p_value=None if p is None else next(corrected),
        )
        for (domain, measure, new, known), p in zip(pairs, p_values, strict=True)
    ]


def _p_value(new: MeasuredScans, known: MeasuredScans, rng: np.random.Generator) -> float | None:
    if min(new.n_subjects, known.n_subjects) < MIN_SUBJECTS:
        return None
    return energy_p_value(new.by_subject(), known.by_subject(), rng)


def header_values(scan: Scan) -> list[float]:
    """Logarithms of what HEADERS names, of a usable scan."""
    spacing, shape = stored_order(scan)
    extent = [step * count for step, count in zip(spacing, shape, strict=True)]
    return [math.log(value) for value in (*spacing, *extent, scan.size_bytes / math.prod(shape))]


def verdict_values(scan: Scan) -> list[float]:
    """Whether quality control repaired a usable scan, and whether it had to assume something."""
    return [float(bool(scan.repair)), float(bool(scan.note))]


def unusual_headers(values: Sequence[float], known: NDArray[np.float64]) -> list[str]:
    """What of a scan's `header_values` lies outside those (scans, headers) of the known scans."""
    low, high = known.min(axis=0), known.max(axis=0)
    named = zip(HEADERS, values, low, high, strict=True)
    tie = 1e-6  # of logarithms: spacings are stored in float32
    return [name for name, value, least, most in named if not least - tie <= value <= most + tie]


def feature_distances(new: MeasuredScans, known: MeasuredScans) -> NDArray[np.float64]:
    """Distance (scans,) of each new scan to its tenth nearest known one; 0 to 2.

    NaN where no scan is known.
    """
    if not len(known.values):
        return np.full(len(new.values), math.nan)
    return neighbour_distance(known.values.astype(np.float32), new.values.astype(np.float32))
