"""Records that evaluation writes and the report reads: results, costs, robustness and ablation.

Results are a function of the predictions alone and are equal byte by byte when they are. Costs,
which differ between runs, are a record of their own.
"""

from pathlib import Path
from typing import Literal

from ssl_pipeline.evaluation.statistics.estimates import Estimate, PairedDifference, SeedEstimate
from ssl_pipeline.evaluation.statistics.subgroups import Gap
from ssl_pipeline.io.records import Record, RecordPart, read_record

RESULTS_FILE, COSTS_FILE = "results.json", "costs.json"
REMEDY = "delete it and run its stage again, which computes nothing twice"
RowKey = tuple[str, str, int]  # method, initialization, labelled subjects


class _Row(RecordPart):
    """What a row of a table is about."""

    method: str
    initialization: str
    subjects: int  # labelled training subjects; 0 is all

    @property
    def key(self) -> RowKey:
        """Method, initialization and labelled subjects."""
        return self.method, self.initialization, self.subjects


class ScoreRow(SeedEstimate, _Row):
    """Score of a method, initialization and label budget, over its seeds."""

    per_class: dict[str, float | None]
    other_metrics: dict[str, Estimate]


class Comparison(PairedDifference, _Row):
    """Difference of an encoder from another initialization, for one method and label budget."""

    against: str
    other_metrics: dict[str, PairedDifference]


class SubgroupScores(RecordPart):
    """Scores of the test scans with one value of an attribute."""

    attribute: str
    value: str
    n_test_subjects: int
    rows: tuple[ScoreRow, ...]


class SubgroupGap(Gap, _Row):
    """Gap of a row between the subgroups by one attribute."""

    attribute: str


class FailedCell(_Row):
    """A cell without predictions, and why."""

    seed: int
    reason: str


class _Evaluation(RecordPart):
    """What all evaluations of a task say of themselves."""

    task: str  # its title
    kind: str
    metric: str  # its identifier
    split: str
    confidence: float
    n_test_subjects: int
    notes: tuple[str, ...]
    warning: str  # shown before any figure; may be empty


class Results(_Evaluation, Record):
    """Results of a task, evaluated by one stage."""

    format: Literal[1] = 1
    n_train_subjects: int
    n_seeds: int
    classes: tuple[str, ...]
    initializations: tuple[str, ...]  # encoders first
    rows: tuple[ScoreRow, ...]
    differences: tuple[Comparison, ...]
    subgroups: tuple[SubgroupScores, ...]
    gaps: tuple[SubgroupGap, ...]
    failed: tuple[FailedCell, ...]


class CellCost(_Row):
    """Cost of one cell."""

    seed: int
    trained_parameters: int
    seconds: float
    feature_seconds: float = 0.0  # of features that other cells share
    memory_bytes: int | None = None  # of training a network


class Costs(Record):
    """Costs of the cells of a task."""

    format: Literal[1] = 1
    cells: tuple[CellCost, ...]


class SeverityScore(Estimate):
    """Score at one severity; 0 is clean."""

    severity: int


class SeverityCurve(RecordPart):
    """A metric of a method and initialization over severities."""

    method: str
    initialization: str
    severities: tuple[SeverityScore, ...]  # means over corruptions
    corruptions: dict[str, tuple[SeverityScore, ...]]


class RobustnessRow(SeverityCurve):
    """Scores on corrupted scans, and the errors relative to those of random weights."""

    corruption_errors: dict[str, float | None]
    corruption_error: float | None  # their mean


class ExplainedVariance(Estimate):
    """Share of the variance between subjects' features that an attribute explains."""

    attribute: str
    initialization: str


class RobustnessResults(_Evaluation, Record):
    """Results of a task on corrupted scans."""

    format: Literal[1] = 1
    initializations: tuple[str, ...]
    rows: tuple[RobustnessRow, ...]
    features: tuple[SeverityCurve, ...]  # label-free measures
    explained_variance: tuple[ExplainedVariance, ...]


class _ArmRow(RecordPart):
    """What a row of an ablation is about."""

    arm: str
    method: str
    subjects: int


class ArmScore(SeedEstimate, _ArmRow):
    """Score of an arm of an ablation, over its trials."""


class ArmDifference(PairedDifference, _ArmRow):
    """Difference of an arm from another, or from a baseline."""

    against: str


class AblationTable(_Evaluation):
    """Scores of all arms on one task, evaluated by one stage."""

    name: str  # of the task in the study
    stage: str
    n_train_subjects: int
    n_seeds: int
    rows: tuple[ArmScore, ...]
    differences: tuple[ArmDifference, ...]


class AblationArm(RecordPart):
    """Cost and diagnoses of the trials of an arm, by seed."""

    name: str
    step_flops: int
    steps: int
    seconds: tuple[float, ...]
    diagnoses: tuple[str, ...]


class AblationResults(Record):
    """Comparison of the arms of an ablation at equal FLOPs."""

    format: Literal[1] = 1
    study: str
    flops: int
    arms: tuple[AblationArm, ...]
    tables: tuple[AblationTable, ...]


class ScalingArm(RecordPart):
    """Length, cost and diagnoses of the pretraining runs of one length, by seed."""

    name: str
    share: float  # of the study's own length
    steps: int
    samples: int
    seconds: tuple[float, ...]
    diagnoses: tuple[str, ...]


class ScalingResults(Record):
    """Scores of encoders of several lengths of pretraining, shortest first."""

    format: Literal[1] = 1
    study: str
    arms: tuple[ScalingArm, ...]
    tables: tuple[AblationTable, ...]


def read_results(folder: Path) -> Results:
    """The results in a stage's folder of a task."""
    return read_record(Results, folder / RESULTS_FILE, REMEDY)


def read_costs(folder: Path) -> Costs:
    """The costs in a stage's folder of a task; none where they were not recorded."""
    path = folder / COSTS_FILE
    return read_record(Costs, path, REMEDY) if path.exists() else Costs(cells=())


def read_scaling(folder: Path) -> ScalingResults | None:
    """The results in the folder of the stage scaling; None where there are none."""
    path = folder / RESULTS_FILE
    return read_record(ScalingResults, path, REMEDY) if path.exists() else None


def read_robustness(folder: Path) -> RobustnessResults | None:
    """The results in a folder of the stage robustness; None where there are none."""
    path = folder / RESULTS_FILE
    return read_record(RobustnessResults, path, REMEDY) if path.exists() else None
