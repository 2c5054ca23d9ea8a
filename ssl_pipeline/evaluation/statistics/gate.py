"""The gate: whether a challenger may replace a champion, by criteria that were fixed before.

Each criterion is a mean over scored subjects and seeds, paired between the two encoders, that is to
be above a bound. What must not be lost is tested for non-inferiority: the lower end of the interval
must be above minus the largest loss allowed (FDA 2016, "Non-Inferiority Clinical Trials"). All of
these must pass, so they need no correction (intersection-union test, Berger 1982). Of what is to be
gained one must be better than before; several are tested by Holm's correction. So where there is
no gain, or where one loss is as large as its bound, a challenger is promoted in at most half of
1 - confidence of all studies. `python -m tests.bench.continual gate` measures it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Literal

from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate
from ssl_pipeline.evaluation.statistics.intervals import (
    MIN_SUBJECTS,
    critical_distance,
    variance_components,
)
from ssl_pipeline.io.records import RecordPart

CriterionOutcome = Literal["passed", "failed", "undecided"]
Verdict = Literal["promoted", "kept", "undecided"]
POWER = 0.8  # chance that enough subjects decide
MAX_SUBJECTS = 100_000  # more are not asked for


class PairedContrast(RecordPart):
    """A mean over seeds and subjects, and the two parts of its variance (`intervals`)."""

    mean: float
    subject_variance: float  # falls as the number of subjects rises
    seed_variance: float
    n_subjects: int
    n_seeds: int

    @classmethod
    def from_estimate(cls, estimate: MetricEstimate) -> "PairedContrast":
        """Of the difference of two encoders."""
        seeds, subjects = estimate.pseudovalues.shape
        of_subjects, of_seeds = (
            variance_components(estimate.pseudovalues) if subjects > 1 else (0.0, 0.0)
        )
        return cls(
            mean=float(estimate.per_seed.mean()),
            subject_variance=of_subjects,
            seed_variance=of_seeds,
            n_subjects=subjects,
            n_seeds=seeds,
        )

    @property
    def subject_sd(self) -> float:
        """Standard deviation between subjects, of the mean over seeds."""
        return sqrt(self.subject_variance * self.n_subjects)

    @property
    def is_defined(self) -> bool:
        """Whether there are enough subjects for an interval, and all is finite."""
        numbers = (self.mean, self.subject_variance, self.seed_variance)
        return self.n_subjects >= MIN_SUBJECTS and all(map(isfinite, numbers))

    def half_width(self, level: float) -> float:
        """Distance from the mean to an end of the interval that errs at each in `level`."""
        components = (self.subject_variance, self.seed_variance)
        return critical_distance(components, (self.n_seeds, self.n_subjects), 2 * level)

    def subjects_needed(self, distance: float, level: float, power: float) -> int | None:
        """Subjects of whom an interval excludes a bound that is `distance` from the truth.

        With at least this power, where subjects vary as these do; None where more than
        MAX_SUBJECTS would be needed, as where seeds differ too much for any number of subjects.
        """

        def suffice(subjects: int) -> bool:
            of_subjects = self.subject_variance * self.n_subjects / subjects
            found, shape = (of_subjects, self.seed_variance), (self.n_seeds, subjects)
            tails = (critical_distance(found, shape, 2 * tail) for tail in (level, 1 - power))
            return sum(tails) <= distance

        low, high = MIN_SUBJECTS - 1, MAX_SUBJECTS
        if distance <= 0 or not suffice(high):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if suffice(middle) else (middle, high)
        return high


class Criterion(RecordPart):
    """What a challenger must show: that the truth of `contrast` + `margin` is above 0.

    `kind` is `loss` for what must not be lost, and `gain` for what is to be gained.
    """

    name: str
    kind: Literal["loss", "gain"]
    margin: float  # largest loss allowed; 0 of a gain
    expected: float  # that sum of a challenger that is to be promoted
    contrast: PairedContrast | None  # None where it cannot be measured
    absence: str = ""  # why it cannot be measured


class Finding(RecordPart):
    """What was found on one criterion."""

    criterion: Criterion
    outcome: CriterionOutcome
    low: float | None  # interval of the contrast
    high: float | None
    subjects_needed: int | None  # to decide it; None where it is decided, or no number would


class GateDecision(RecordPart):
    """The verdict on a challenger, with its reason."""

    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...]

    @property
    def subjects_needed(self) -> int | None:
        """Scored subjects that would decide; None where it is decided, or no number would."""
        if self.verdict != "undecided":
            return None
        return _all_needed(_open(self.findings))


def decide(
    criteria: Sequence[Criterion], obstacles: Sequence[str], confidence: float
) -> GateDecision:
    """The verdict by these criteria; each of `obstacles`, in words, forbids a promotion.

    `kept` where a loss or the absence of every worthwhile gain is shown, `undecided` where neither
    these nor the opposite are.
    """
    tests = _Tests(criteria, (1 - confidence) / 2)
    passed = tests.passed()
    findings = tuple(tests.finding(each, each.name in passed) for each in criteria)
    verdict, reason = _verdict(findings, obstacles)
    return GateDecision(verdict=verdict, reason=reason, findings=findings)


def planned_subjects(criteria: Sequence[Criterion], confidence: float) -> list[int | None]:
    """Scored subjects that each criterion needs where subjects vary as its contrast does.

    So that a challenger as good as expected is promoted with a chance of POWER; None where no
    number would do.
    """
    tests = _Tests(criteria, (1 - confidence) / 2)
    return [tests.subjects_needed(each, each.expected) for each in criteria]


@dataclass(frozen=True)
class _Tests:
    """The tests of a set of criteria, each interval erring at an end in `level` of all studies."""

    criteria: Sequence[Criterion]
    level: float

    @property
    def gains(self) -> list[Criterion]:
        return [each for each in self.criteria if each.kind == "gain"]

    def passed(self) -> set[str]:
        """Names of the criteria that are shown; of gains by Holm's correction (Holm 1979)."""
        passed: set[str] = set()
        while left := [each for each in self.gains if each.name not in passed]:
            better = {each.name for each in left if _exceeds(each, self.level / len(left))}
            if not better:
                break
            passed |= better
        losses = (each for each in self.criteria if each.kind == "loss")
        return passed | {each.name for each in losses if _exceeds(each, self.level)}

    def subjects_needed(self, criterion: Criterion, distance: float) -> int | None:
        """Subjects with whom it is shown where the truth is `distance` above its bound."""
        if criterion.contrast is None:
            return None
        is_gain = criterion.kind == "gain"
        level = self.level / len(self.gains) if is_gain else self.level
        must_pass = len(self.criteria) - len(self.gains) + bool(self.gains)
        power = 1 - (1 - POWER) / must_pass  # of each, so that all pass together
        return criterion.contrast.subjects_needed(distance, level, power)

    def finding(self, criterion: Criterion, is_passed: bool) -> Finding:
        """What was found on one criterion."""
        found = criterion.contrast
        if found is None or not found.is_defined:
            few = found is not None and found.n_subjects < MIN_SUBJECTS
            return Finding(
                criterion=criterion,
                outcome="undecided",
                low=None,
                high=None,
                subjects_needed=MIN_SUBJECTS if few else None,
            )
        half = found.half_width(self.level)
        out_of_reach = criterion.expected if criterion.kind == "gain" else 0.0
        is_failed = found.mean + half + criterion.margin < out_of_reach
        outcome: CriterionOutcome = (
            "passed" if is_passed else "failed" if is_failed else "undecided"
        )
        return Finding(
            criterion=criterion,
            outcome=outcome,
            low=found.mean - half,
            high=found.mean + half,
            subjects_needed=self._more_subjects(criterion, found)
            if outcome == "undecided"
            else None,
        )

    def _more_subjects(self, criterion: Criterion, found: PairedContrast) -> int | None:
        """Subjects that would decide: by what was expected, or where so many are, by the mean."""
        needed = self.subjects_needed(criterion, criterion.expected)
        if needed is None or needed > found.n_subjects:
            return needed
        return self.subjects_needed(criterion, found.mean + criterion.margin)


def _exceeds(criterion: Criterion, level: float) -> bool:
    """Whether the lower end of the interval is above the bound."""
    found = criterion.contrast
    if found is None or not found.is_defined:
        return False
    return found.mean + criterion.margin - found.half_width(level) > 0


def _verdict(findings: Sequence[Finding], obstacles: Sequence[str]) -> tuple[Verdict, str]:
    if obstacles:
        return "kept", " ".join(obstacles)
    losses = [each for each in findings if each.criterion.kind == "loss"]
    gains = [each for each in findings if each.criterion.kind == "gain"]
    failed = [each.criterion.name for each in losses if each.outcome == "failed"]
    if failed:
        return "kept", f"More is lost than allowed in {', '.join(failed)}."
    if gains and all(each.outcome == "failed" for each in gains):
        return "kept", "No task gains what would be worth a promotion."
    if left := _open(findings):
        return "undecided", _undecided_reason(left)
    better = [each.criterion.name for each in gains if each.outcome == "passed"]
    why = f"better in {', '.join(better)}" if better else "nothing is compared"
    return "promoted", f"No more is lost than allowed, and it is {why}."


def _open(findings: Sequence[Finding]) -> list[Finding]:
    """Findings that keep the gate from deciding; of gains the one that needs fewest subjects."""
    losses = [each for each in findings if each.criterion.kind == "loss"]
    gains = [each for each in findings if each.criterion.kind == "gain"]
    left = [each for each in losses if each.outcome == "undecided"]
    if gains and not any(each.outcome == "passed" for each in gains):
        candidates = [each for each in gains if each.outcome == "undecided"]
        left.append(min(candidates, key=lambda each: each.subjects_needed or MAX_SUBJECTS + 1))
    return left


def _all_needed(findings: Sequence[Finding]) -> int | None:
    needed = [each.subjects_needed for each in findings]
    return None if None in needed else max(filter(None, needed), default=None)


def _undecided_reason(findings: Sequence[Finding]) -> str:
    return " ".join(map(_undecided_sentence, findings))


def _undecided_sentence(finding: Finding) -> str:
    criterion = finding.criterion
    if criterion.contrast is None:
        return f"The criterion {criterion.name} cannot be measured: {criterion.absence}."
    if finding.subjects_needed is None:
        return f"The criterion {criterion.name} is undecided, and no number of subjects would do."
    return (
        f"The criterion {criterion.name} is undecided with {criterion.contrast.n_subjects} scored "
        f"subjects; about {finding.subjects_needed} would decide."
    )
