"""The table of an ablation, from cells whose scores are known."""

import numpy as np
import pytest

from ssl_pipeline.evaluation.ablation import ablation_table
from ssl_pipeline.evaluation.cells import PIXELS, Cell
from ssl_pipeline.evaluation.tasks import Classification
from ssl_pipeline.io.atomic import read_json, write_json

SUBJECTS = [f"subject-{number:02}" for number in range(12)]
TASK = Classification(title="Organ", target="organ", classes={0: "liver", 1: "spleen"})
SETTINGS = {"score": TASK.score, "confidence": 0.95, "seed": 0}


def trial(folder, hits, init="pretrained"):
    """A trial's folder: `hits` (draws of labels, subjects) are the correct predictions."""
    hits = np.asarray(hits)
    for seed, of_draw in enumerate(hits):
        rows = [
            {"subject": s, "target": 0, "probability": [float(hit), 1 - float(hit)]}
            for s, hit in zip(SUBJECTS, of_draw, strict=True)
        ]
        write_json(Cell("knn", init, 5, seed).path(folder), {"predictions": rows})
    row = {"method": "knn", "initialization": init, "subjects": 5, "per_seed": [0.0] * len(hits)}
    task = {"task": "Organ", "kind": "crop_classification", "metric": "balanced accuracy"}
    counts = {"split": "val", "n_train_subjects": 20, "n_test_subjects": len(SUBJECTS)}
    results = {**task, **counts, "notes": [], "warning": "", "rows": [row]}
    write_json(folder / "results.json", results)
    return folder


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
        row = {"method": "knn", "initialization": PIXELS, "subjects": 5, "per_seed": [0.0, 0.0]}
        path = folder / "results.json"
        content = read_json(path)
        write_json(path, {**content, "rows": [*content["rows"], row]})


def rows_of(table):
    return {row["arm"]: row for row in table["rows"]}


def test_an_arm_scores_the_mean_over_seeds_and_draws_of_labels(arms):
    with_pixels(arms["random"])
    rows = rows_of(ablation_table(arms, **SETTINGS))
    assert list(rows) == ["mae", "hybrid", "random", PIXELS]
    expected = [random_hits(0.8, seed).mean() for seed in range(2)]
    assert rows["mae"]["per_seed"] == pytest.approx(expected, abs=1e-6)
    assert rows["mae"]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert rows["mae"]["low"] < rows["mae"]["mean"] < rows["mae"]["high"]


def test_differences_are_paired_by_subject_and_seed(arms):
    with_pixels(arms["random"])
    found = {(d["arm"], d["against"]): d for d in ablation_table(arms, **SETTINGS)["differences"]}
    assert found.keys() == {
        ("hybrid", "mae"),
        *((arm, other) for arm in ("mae", "hybrid") for other in ("random", PIXELS)),
    }
    same = found["hybrid", "mae"]
    assert (same["mean"], same["low"], same["high"]) == (0, 0, 0)
    assert found["mae", "random"]["low"] > 0


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
        row = rows_of(ablation_table({"mae": folders, "random": other}, **SETTINGS))["mae"]
        return row["high"] - row["low"]

    assert width(10, "many") == pytest.approx(width(1, "one"), abs=1e-6)


def test_few_subjects_get_no_interval(arms, monkeypatch):
    with_pixels(arms["random"])
    monkeypatch.setattr(
        "ssl_pipeline.evaluation.statistics.estimates.MIN_SUBJECTS", len(SUBJECTS) + 1
    )
    table = ablation_table(arms, **SETTINGS)
    assert all(row["low"] is None for row in (*table["rows"], *table["differences"]))


def test_warnings_of_trials_are_reported_once(arms):
    with_pixels(arms["random"])
    for folder in arms["mae"]:
        path = folder / "results.json"
        write_json(path, {**read_json(path), "warning": "Seen."})
    assert ablation_table(arms, **SETTINGS)["warning"] == "Seen."


def test_a_row_of_which_a_seed_has_failed_is_left_out_and_reported(arms):
    with_pixels(arms["random"])
    path = arms["hybrid"][1] / "results.json"
    failed = [
        {"method": "knn", "initialization": "pretrained", "subjects": 5, "seed": 0, "reason": "why"}
    ]
    write_json(path, {**read_json(path), "rows": [], "failed": failed})
    table = ablation_table(arms, **SETTINGS)
    assert set(rows_of(table)) == {"mae", "random", PIXELS}
    assert {(d["arm"], d["against"]) for d in table["differences"]} == {
        ("mae", "random"),
        ("mae", PIXELS),
    }
    assert table["warning"] == "Cells of hybrid-1 failed: 1."
