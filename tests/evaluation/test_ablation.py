"""The table of an ablation, from cells whose scores are known."""

import numpy as np
import pytest

from ssl_pipeline.evaluation.ablation import ablation_table
from ssl_pipeline.evaluation.cells import PIXELS, Cell, CellRecord, save_cell
from ssl_pipeline.evaluation.records import (
    RESULTS_FILE,
    FailedCell,
    Results,
    ScoreRow,
    read_results,
)
from ssl_pipeline.evaluation.tasks import Classification
from ssl_pipeline.io.records import write_record

SUBJECTS = [f"subject-{number:02}" for number in range(12)]
TASK = Classification(title="Organ", target="organ", classes={0: "liver", 1: "spleen"})


def trial(folder, hits, init="pretrained"):
    """A trial's folder: `hits` (draws of labels, subjects) are the correct predictions."""
    hits = np.asarray(hits)
    for seed, of_draw in enumerate(hits):
        rows = [
            {"subject": s, "target": 0, "probability": [float(hit), 1 - float(hit)]}
            for s, hit in zip(SUBJECTS, of_draw, strict=True)
        ]
        record = CellRecord(key="key", encoder="", predictions=rows)
        save_cell(Cell("knn", init, 5, seed), record, folder)
    write_record(folder / RESULTS_FILE, results_with(score_row(init, len(hits))))
    return folder


def score_row(init, draws):
    return ScoreRow(
        method="knn",
        initialization=init,
        subjects=5,
        mean=0.0,
        low=None,
        high=None,
        sd_seeds=None,
        per_seed=(0.0,) * draws,
        per_class={},
        other_metrics={},
    )


def results_with(*rows):
    return Results(
        task="Organ",
        kind="classification",
        metric=TASK.METRIC,
        split="val",
        confidence=0.95,
        n_train_subjects=20,
        n_test_subjects=len(SUBJECTS),
        n_seeds=2,
        classes=TASK.class_names,
        initializations=(),
        rows=rows,
        differences=(),
        subgroups=(),
        gaps=(),
        failed=(),
        notes=(),
        warning="",
    )


def change_results(folder, **changes):
    results = read_results(folder).model_copy(update=changes)
    write_record(folder / RESULTS_FILE, results)


def table_of(arms):
    return ablation_table("organ", "probe", arms, score=TASK.score, confidence=0.95)


def random_hits(share, seed, draws=2):
    return np.random.default_rng(seed).random((draws, len(SUBJECTS))) < share


@pytest.fixture
def arms(tmp_path):
    """Two arms and random weights, two seeds each; the second arm is the first one again."""

    def seeds(name, share, first, init="pretrained"):
        return [
            trial(tmp_path / f"{name}-{seed}", random_hits(share, first + seed), init)
            for seed in range(2)
        ]

    return {
        "mae": seeds("mae", 0.8, 0),
        "hybrid": seeds("hybrid", 0.8, 0),
        "random": seeds("random", 0.3, 9, "random"),
    }


def with_pixels(folders):
    """The baseline lies beside random weights, as an evaluation writes both."""
    for number, folder in enumerate(folders):
        pixels = trial(folder / "pixels", random_hits(0.5, 20 + number), PIXELS)
        for cell in (pixels / "cells").iterdir():
            cell.rename(folder / "cells" / cell.name)
        change_results(folder, rows=(*read_results(folder).rows, score_row(PIXELS, 2)))


def rows_of(table):
    return {row.arm: row for row in table.rows}


def test_an_arm_scores_the_mean_over_seeds_and_draws_of_labels(arms):
    with_pixels(arms["random"])
    rows = rows_of(table_of(arms))
    assert list(rows) == ["mae", "hybrid", "random", PIXELS]
    expected = [random_hits(0.8, seed).mean() for seed in range(2)]
    assert rows["mae"].per_seed == pytest.approx(expected, abs=1e-6)
    assert rows["mae"].mean == pytest.approx(np.mean(expected), abs=1e-6)
    assert rows["mae"].low < rows["mae"].mean < rows["mae"].high


def test_differences_are_paired_by_subject_and_seed(arms):
    with_pixels(arms["random"])
    found = {(d.arm, d.against): d for d in table_of(arms).differences}
    assert found.keys() == {
        ("hybrid", "mae"),
        *((arm, other) for arm in ("mae", "hybrid") for other in ("random", PIXELS)),
    }
    same = found["hybrid", "mae"]
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    assert found["mae", "random"].low > 0


def test_draws_of_labels_are_no_seeds_of_their_own(tmp_path):
    """Equal draws narrow no interval: what varies is the encoder of each seed."""
    shares = (0.5, 0.9)

    def width(draws, name):
        folders = [
            trial(tmp_path / f"{name}-{s}", np.repeat(random_hits(share, s, 1), draws, axis=0))
            for s, share in enumerate(shares)
        ]
        other = [trial(tmp_path / f"{name}-r{s}", random_hits(0.3, s), "random") for s in range(2)]
        with_pixels(other)
        row = rows_of(table_of({"mae": folders, "random": other}))["mae"]
        return row.high - row.low

    assert width(10, "many") == pytest.approx(width(1, "one"), abs=1e-6)


def test_few_subjects_get_no_interval(arms, monkeypatch):
    with_pixels(arms["random"])
    monkeypatch.setattr(
        "ssl_pipeline.evaluation.statistics.estimates.MIN_SUBJECTS", len(SUBJECTS) + 1
    )
    table = table_of(arms)
    assert all(row.low is None for row in (*table.rows, *table.differences))


def test_warnings_of_trials_are_reported_once(arms):
    with_pixels(arms["random"])
    for folder in arms["mae"]:
        change_results(folder, warning="Seen.")
    assert table_of(arms).warning == "Seen."


def test_a_row_of_which_a_seed_has_failed_is_left_out_and_reported(arms):
    with_pixels(arms["random"])
    failed = FailedCell(method="knn", initialization="pretrained", subjects=5, seed=0, reason="why")
    change_results(arms["hybrid"][1], rows=(), failed=(failed,))
    table = table_of(arms)
    assert set(rows_of(table)) == {"mae", "random", PIXELS}
    assert {(d.arm, d.against) for d in table.differences} == {
        ("mae", "random"),
        ("mae", PIXELS),
    }
    assert table.warning == "Cells of hybrid-1 failed: 1."
