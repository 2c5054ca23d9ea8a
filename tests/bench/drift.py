"""How often `drift` errs: false alarms on splits of old scans, and new protocols that it misses.

Four protocols of public data (see `forgetting.py`), two of CT and two of MR. Known scans and a
month of new ones are drawn at random from the subjects of one protocol; in a planted month some or
all subjects are of the other protocol of the modality, which nothing in the domain's name says.
Features are those of random weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.export.embed import embed_prepared
from ssl_pipeline.registry.drift import (
    DriftTest,
    MeasuredScans,
    drift_tests,
    header_values,
    verdict_values,
)
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.volumes.inventory import Inventory
from stages.commands.measured_scans import measure_scans
from stages.core import layout
from stages.core.study import Study
from stages.trainer import random_encoder
from tests.bench.forgetting import OUT, prepared_study, public_domains
from tests.bench.goal_rows import GoalRow, write_rows

KNOWN, NEW = 20, 15  # subjects, as many as the smallest protocol allows
SPLITS, MONTHS = 1000, 400  # draws of old scans, and of months of each share
SHARES = (1.0, 0.5, 0.25)  # of a month's subjects that are of the new protocol
LEVEL, MAX_FALSE, MIN_FOUND = 0.05, 0.05, 0.9

Values = Mapping[str, NDArray[np.float64]]  # by measure, of one subject's scan
Subjects = Sequence[Values]


def measured_subjects(study: Study) -> dict[str, Subjects]:
    """What is measured of one scan of each subject, by protocol."""
    catalog = Catalog.read(layout.catalog_table(study))
    scans = {scan.id: scan for scan in Inventory.read(layout.inventory_table(study)).scans}
    encoder, crop = random_encoder(study, 0), study.views.crop_voxels
    found: dict[str, Subjects] = {}
    for name, entries in public_domains(study, catalog).items():
        own: list[Entry] = [*{entry.subject: entry for entry in entries}.values()]
        features = measure_scans(
            study,
            catalog,
            own,
            OUT / "embeddings",
            lambda prepared: embed_prepared(encoder, crop, prepared).vector.tolist(),
        )
        found[name] = [
            {
                "features": vector,
                "headers": np.array(header_values(scans[entry.id])),
                "verdicts": np.array(verdict_values(scans[entry.id])),
            }
            for entry, vector in zip(own, features, strict=True)
        ]
    return found


def month_tests(new: Subjects, known: Subjects, rng: np.random.Generator) -> list[DriftTest]:
    """The tests of a month in one domain."""

    def measured(subjects: Subjects, measure: str) -> MeasuredScans:
        names = [f"{number}" for number in range(len(subjects))]
        values = np.stack([values[measure] for values in subjects])
        return MeasuredScans(values, names, ["domain"] * len(names))

    samples = {name: (measured(new, name), measured(known, name)) for name in known[0]}
    return drift_tests(samples, rng)


def drawn_months(
    protocols: Mapping[str, Subjects], share: float, rng: np.random.Generator
) -> Iterator[list[DriftTest]]:
    """Tests of months without end, from protocol to protocol of one modality in turn."""
    pairs = [pair for pair in permutations(protocols, 2) if pair[0][:2] == pair[1][:2]]
    planted = round(share * NEW)
    while True:
        for old, other in pairs:
            order = rng.permutation(len(protocols[old]))[: KNOWN + NEW - planted]
            drawn = [protocols[old][row] for row in order]
            rows = rng.choice(len(protocols[other]), planted, replace=False)
            month = [*drawn[KNOWN:], *(protocols[other][row] for row in rows)]
            yield month_tests(month, drawn[:KNOWN], rng)


def alarms(
    protocols: Mapping[str, Subjects], share: float, draws: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Months of so many in which any measure drifts, and in which features alone would do."""
    months = zip(range(draws), drawn_months(protocols, share, rng), strict=False)
    found = [tests for _, tests in months]
    p_values = [test.p_value for tests in found for test in tests if test.measure == "features"]
    by_features = sum(p <= LEVEL for p in p_values if p is not None)
    assert None not in p_values, "every month has enough subjects to be tested"
    return sum(any(test.is_drift(LEVEL) for test in tests) for tests in found), by_features


def bench_drift() -> None:
    """Write the share of months that call for an update, by what was planted."""
    study = prepared_study(0)
    protocols = measured_subjects(study)
    for name, subjects in protocols.items():
        print(f"{name}: {len(subjects)} subjects", flush=True)
    rng = np.random.default_rng(0)
    false, by_features = alarms(protocols, 0.0, SPLITS, rng)
    sizes = f"{KNOWN} known and {NEW} new subjects"
    rows = [
        GoalRow(
            f"false alarms of {SPLITS:,} splits of old scans, {sizes}",
            str(false),
            f"at most {MAX_FALSE:.0%}",
            false <= MAX_FALSE * SPLITS,
        ),
        GoalRow("the same by features alone", str(by_features)),
    ]
    for share in SHARES:
        count, by_features = alarms(protocols, share, MONTHS, rng)
        goal = f"at least {MIN_FOUND:.0%}" if share == 1 else ""
        met = count >= MIN_FOUND * MONTHS if goal else None
        measure = f"found of {MONTHS} months with {share:.0%} of subjects of a new protocol"
        rows += [
            GoalRow(measure, str(count), goal, met),
            GoalRow("the same by features alone", str(by_features)),
        ]
    write_rows("continual", "drift", rows)
