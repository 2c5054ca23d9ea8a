"""Whether the scans that came are unlike those that the champion knows: `ssl-pipeline drift`.

New are the usable scans of the split train that the champion was not trained on. Their headers and
the verdicts of quality control are compared with those of the scans that it was trained on; their
features with those of held-out scans in its banks, for an encoder may see what it was trained on
otherwise. Tables have codes alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.statistics.intervals import MIN_SUBJECTS
from ssl_pipeline.export import training_subjects
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import write_csv
from ssl_pipeline.progress import info, print_table
from ssl_pipeline.registry.drift import (
    DriftTest,
    MeasuredScans,
    drift_tests,
    feature_distances,
    header_values,
    unusual_headers,
    verdict_values,
)
from ssl_pipeline.registry.registry import CHAMPION
from ssl_pipeline.report.drift_page import write_drift_page
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.training.domain_bank import domain_of, domain_title
from ssl_pipeline.views.rng import generator
from ssl_pipeline.volumes.inventory import Inventory, Scan
from stages.commands.measured_scans import embed_scans
from stages.core import layout
from stages.core.champion import registry_of
from stages.core.process import DONE_EXIT, UPDATE_DUE_EXIT
from stages.core.study import Study
from stages.evaluation_check import check_contract

TEST_COLUMNS = ("domain", "measure", "new subjects", "known subjects", "p", "p corrected", "drift")
SCAN_COLUMNS = ("domain", "scan", "subject", "root", "site", "distance", "unusual headers")
NAMED_SCANS = 3  # in the sentence


def find_drift(study: Study) -> int:
    """Compare new scans with known ones, write tables and page, and say whether an update is due.

    Returns the exit code. Raises UserError where the study has no champion, or one that does not
    say which scans it was trained on, of another model or preprocessing, or of no scan that is
    listed here.
    """
    bundle = _champion_bundle(study)
    scans = _ScansOfDrift.find(study, bundle)
    assert study.promote
    champion = study.promote.reference
    if not scans.new:
        info(f"drift: no update is due: no scan has come that {champion} was not trained on.")
        return DONE_EXIT
    samples = scans.samples(bundle)
    tests = drift_tests(samples, generator(study.seed, 0, "drift"))
    level = 1 - study.promote.confidence
    found = [test for test in tests if test.is_drift(level)]
    listed = _listed_scans(scans.new, samples, {test.domain for test in found})
    rows = [_test_row(test, level) for test in tests]
    write_csv(layout.drift_table(study), TEST_COLUMNS, rows)
    write_csv(layout.drift_scans(study), SCAN_COLUMNS, listed)
    conclusion = _conclusion(champion, len(scans.new), found, listed)
    write_drift_page(layout.drift_page(study), study.name, conclusion, rows, listed)
    print_table(_test_table(study, rows))
    for domain in sorted({test.domain for test in tests if test.new_subjects < MIN_SUBJECTS}):
        info(f"drift: {domain} has too few new subjects to test: {MIN_SUBJECTS} are needed.")
    info(f"drift: {conclusion} The page of it is {layout.drift_page(study)}")
    return UPDATE_DUE_EXIT if found else DONE_EXIT


def _conclusion(
    champion: str, n_new: int, found: Sequence[DriftTest], listed: Sequence[dict[str, Any]]
) -> str:
    """Whether an update is due, and why."""
    if not found:
        came = format_count(n_new, "new scan")
        return f"no update is due: {came}, and no drift from what {champion} knows."
    first = ", ".join(row["scan"] for row in listed[:NAMED_SCANS])
    drifted = "; ".join(f"{test.domain} in {test.measure}" for test in found)
    return (
        f"an update is due: new scans are unlike those that {champion} knows ({drifted}). "
        f"Inspect these first: {first}."
    )


def _champion_bundle(study: Study) -> Path:
    """The encoder that the alias points to now, which may be the study's own."""
    if study.promote is None:
        raise UserError(
            "The study has no section `promote`, and drift is from what a registry's champion "
            "knows: add `promote`, or give a study that has it."
        )
    registry = registry_of(study)
    champion = registry.current(study.promote.name, study.promote.alias)
    if not champion:
        raise UserError(
            f"{registry.folder} has no {study.promote.reference} yet: run the stage promote, or "
            "`ssl-pipeline registry add`."
        )
    registry.entry(champion)
    bundle = registry.encoder_folder(champion)
    check_contract(study, study.encoder_title(CHAMPION), bundle)
    return bundle


@dataclass(frozen=True)
class _ScansOfDrift:
    """Scans that came, scans that the champion was trained on, and held-out ones of its banks."""

    study: Study
    catalog: Catalog
    new: Sequence[Scan]
    trained: Sequence[Scan]
    held_out: Sequence[Entry]

    @classmethod
    def find(cls, study: Study, bundle: Path) -> "_ScansOfDrift":
        """Sort the scans that are stored. Raises UserError where none is known to be trained on."""
        assert study.promote
        catalog = Catalog.read(layout.catalog_table(study))
        inventory = Inventory.read(layout.inventory_table(study))
        known = training_subjects.read(bundle)
        if known is None or known.is_unknown:
            raise UserError(
                f"{study.promote.reference} does not say which scans it was trained on: promote an "
                "encoder that this version has pretrained."
            )
        is_same_salt = known.salt_fingerprint == inventory.salt_fingerprint

        def is_known(scan: Scan | Entry) -> bool:
            return (is_same_salt and scan.id in known.scans) or (
                scan.voxel_hash in known.voxel_hashes
            )

        stored = {entry.id for entry in catalog.entries}
        usable = [s for s in inventory.accepted_scans if s.split == "train" and s.id in stored]
        trained = [scan for scan in usable if is_known(scan)]
        if not trained:
            raise UserError(
                f"None of the scans that {study.promote.reference} was trained on is stored here: "
                "give the study that has them, beside the new ones."
            )
        new = [scan for scan in usable if not is_known(scan)]
        domains = {_domain(study, scan) for scan in trained}
        banks = registry_of(study).banks(study.promote.name).values()
        held_out = {e.id: e for bank in banks for e in bank.entries(catalog.entries)}
        kept = [e for e in held_out.values() if not is_known(e) and _domain(study, e) in domains]
        return cls(study, catalog, new, trained, kept)

    def samples(self, bundle: Path) -> dict[str, tuple[MeasuredScans, MeasuredScans]]:
        """New and known scans by each measure; the encoder in `bundle` gives the features."""
        new = [self.catalog.by_id(scan.id) for scan in self.new]
        vectors = embed_scans(self.study, self.catalog, [*new, *self.held_out], bundle)
        return {
            "features": (
                self._sample(new, vectors[: len(new)]),
                self._sample(self.held_out, vectors[len(new) :]),
            ),
            "headers": self._measured(header_values),
            "verdicts": self._measured(verdict_values),
        }

    def _measured(
        self, measure: Callable[[Scan], list[float]]
    ) -> tuple[MeasuredScans, MeasuredScans]:
        new, known = (
            self._sample(own, np.array([measure(scan) for scan in own]))
            for own in (self.new, self.trained)
        )
        return new, known

    def _sample(self, scans: Sequence[Scan | Entry], values: NDArray[np.float64]) -> MeasuredScans:
        return MeasuredScans(
            values,
            [scan.subject or scan.id for scan in scans],
            [_domain(self.study, scan) for scan in scans],
        )


def _domain(study: Study, scan: Scan | Entry) -> str:
    assert study.promote
    return domain_title(domain_of(scan, study.promote.domains))


def _listed_scans(
    new: Sequence[Scan], samples: dict[str, tuple[MeasuredScans, MeasuredScans]], drifted: set[str]
) -> list[dict[str, Any]]:
    """Rows of all new scans; first those of drifted domains, the most unusual ones first."""
    features, headers = samples["features"], samples["headers"]
    rows = []
    for domain in sorted(set(features[0].domains)):
        of_domain = [
            scan for scan, own in zip(new, features[0].domains, strict=True) if own == domain
        ]
        far = feature_distances(features[0].of_domain(domain), features[1].reference_for(domain))
        known = headers[1].reference_for(domain).values
        for scan, distance in zip(of_domain, far, strict=True):
            unusual = unusual_headers(header_values(scan), known)
            rows.append(_scan_row(domain, scan, float(distance), unusual))

    def order(row: dict[str, Any]) -> tuple[bool, int, float]:
        unusual = row["unusual headers"].count(",") + bool(row["unusual headers"])
        return row["domain"] not in drifted, -unusual, -float(row["distance"])

    return sorted(rows, key=order)


def _scan_row(domain: str, scan: Scan, distance: float, unusual: Iterable[str]) -> dict[str, Any]:
    return {
        "domain": domain,
        "scan": scan.id,
        "subject": scan.subject,
        "root": scan.root,
        "site": scan.site,
        "distance": f"{distance:.4f}",
        "unusual headers": ", ".join(unusual),
    }


def _test_row(test: DriftTest, level: float) -> dict[str, Any]:
    """A test in words; without a p-value where there were too few subjects."""
    p_values = (test.p_value, test.corrected_p_value)
    shown = ("too few" if p is None else f"{p:.2g}" for p in p_values)
    outcome = "yes" if test.is_drift(level) else "no" if test.p_value is not None else ""
    cells = (test.domain, test.measure, test.new_subjects, test.known_subjects, *shown, outcome)
    return dict(zip(TEST_COLUMNS, cells, strict=True))


def _test_table(study: Study, rows: Iterable[dict[str, Any]]) -> Table:
    table = Table(title=f"{study.name}: new scans and known ones", title_justify="left", box=None)
    for column in TEST_COLUMNS:
        table.add_column(column, no_wrap=column != "domain")
    for row in rows:
        table.add_row(*map(str, row.values()))
    return table
