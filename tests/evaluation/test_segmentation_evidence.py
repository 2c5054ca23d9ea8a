"""The collector of segmentation evidence: rows of finished studies, baselines once."""

from pathlib import Path

import pytest

from ssl_pipeline.evaluation.cells import PIXELS, RANDOM
from ssl_pipeline.evaluation.records import RESULTS_FILE, Results, ScoreRow
from ssl_pipeline.io.records import write_record
from tests.bench.segmentation_evidence import EvidenceRow, study_rows, unique_rows
from tests.bench.table import BenchmarkRow


def score_row(start: str, subjects: int, mean: float) -> ScoreRow:
    return ScoreRow(
        method="full",
        initialization=start,
        subjects=subjects,
        mean=mean,
        low=mean - 0.1,
        high=mean + 0.1,
        sd_seeds=None,
        per_seed=(mean,),
        per_class={},
        other_metrics={},
    )


def write_results(folder: Path, *rows: ScoreRow) -> None:
    folder.mkdir(parents=True)
    results = Results(
        task="Tissue",
        kind="segmentation",
        metric="mean_dice",
        split="test",
        confidence=0.95,
        n_train_subjects=20,
        n_test_subjects=12,
        n_seeds=1,
        classes=("a",),
        initializations=tuple(row.initialization for row in rows),
        rows=rows,
        differences=(),
        subgroups=(),
        gaps=(),
        failed=(),
        notes=(),
        warning="",
    )
    write_record(folder / RESULTS_FILE, results)


def test_rows_are_named_as_readers_of_the_file_expect(study):
    folder = study.stage_folder("finetune", {"task": "tissue"})
    rows = [score_row("pretrained", 5, 0.8), score_row(RANDOM, 0, 0.7), score_row(PIXELS, 5, 0.5)]
    write_results(folder, *rows)
    found = [(row.start, row.network, row.subjects, row.mean) for row in study_rows(study)]
    assert found == [
        ("pretrained", study.model.name, 5, 0.8),
        ("random", study.model.name, 0, 0.7),
        ("pixels", "voxel PCA", 5, 0.5),
    ]


def evidence(start: str, network: str, mean: float, seeds: int = 3) -> EvidenceRow:
    return EvidenceRow("Tissue", start, network, 5, "mean Dice", mean, None, None, seeds)


def test_a_baseline_that_two_studies_share_is_one_row():
    pixels = evidence("pixels", "voxel PCA", 0.5)
    both = [evidence("random", "resenc", 0.7), pixels, evidence("random", "vit", 0.6), pixels]
    assert list(unique_rows(both)) == both[:3]


def test_a_row_replaces_that_of_an_earlier_run_unless_it_has_fewer_seeds():
    anew, fewer = evidence("random", "resenc", 0.7), evidence("nnunet", "ResEnc M", 0.8, seeds=1)
    earlier = [evidence("nnunet", "ResEnc M", 0.9), evidence("random", "resenc", 0.6)]
    assert list(unique_rows([anew, fewer, *earlier])) == [anew, earlier[0]]


@pytest.mark.parametrize(
    "interval, outcome",
    [((1.0, 1.2), "met"), ((0.9, 1.2), "undecided"), ((0.8, 0.9), "missed"), (None, "met")],
)
def test_a_goal_is_met_by_the_whole_interval(interval, outcome):
    assert BenchmarkRow("steps", "2", "peer: 1", 1.1, 1.0, interval).outcome == outcome
