"""Differences of two encoders that the gate compares, from the files that evaluations leave."""

import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import Cell, CellRecord, save_cell
from ssl_pipeline.evaluation.metrics.scores import CellScores, mean_class_ratio
from ssl_pipeline.evaluation.paired_scores import paired_scores
from ssl_pipeline.evaluation.records import Results, ScoreRow

SUBJECTS = [f"s{n:02}" for n in range(12)]
SKILL = {"champion": 0.5, "new": 0.6}  # mean score
WEIGHTS = {name: f"weights of {name}" for name in ("new", "champion")}


def score(subjects, predictions):
    """The mean over subjects of what was written for them."""
    by_subject = {row["subject"]: row["score"] for row in predictions}
    total = np.array([[by_subject[subject]] for subject in subjects])
    return CellScores({"score": mean_class_ratio(total, np.ones_like(total))}, np.zeros(1))


@pytest.fixture
def folder(tmp_path):
    """Cells of two encoders, with 5 and with all labelled subjects, of three seeds."""
    for name, skill in SKILL.items():
        for budget in (5, 0):
            for seed in range(3):
                rows = tuple(
                    {"subject": subject, "score": (skill if budget == 0 else 0) + 0.01 * n}
                    for n, subject in enumerate(SUBJECTS)
                )
                save_cell(
                    Cell("knn", name, budget, seed),
                    CellRecord(key="", encoder=f"weights of {name}", predictions=rows),
                    tmp_path,
                )
    return tmp_path


def results(*rows):
    return Results.model_construct(
        rows=tuple(
            ScoreRow.model_construct(
                method="knn", initialization=name, subjects=budget, per_seed=(0.0, 0.0, 0.0)
            )
            for name, budget in rows
        )
    )


def test_encoders_are_compared_with_most_labels_and_subject_by_subject(folder):
    table = results(("champion", 5), ("champion", 0), ("new", 5), ("new", 0))
    found = paired_scores(folder, table, "knn", WEIGHTS, score)
    assert found.mean == pytest.approx(0.1)
    assert (found.n_subjects, found.n_seeds) == (12, 3)
    # Subjects differ by up to 0.11, their differences by nothing.
    assert found.subject_sd == pytest.approx(0, abs=1e-9)


def test_a_row_that_failed_leaves_nothing_to_compare(folder):
    table = results(("champion", 5), ("champion", 0), ("new", 5))
    assert paired_scores(folder, table, "knn", WEIGHTS, score) is None
    assert paired_scores(folder, table, "linear", WEIGHTS, score) is None


def test_results_of_an_earlier_champion_are_refused(folder):
    table = results(("champion", 0), ("new", 0))
    with pytest.raises(UserError, match="that was champion before: run its stage again"):
        paired_scores(folder, table, "knn", {**WEIGHTS, "champion": "of the next"}, score)
