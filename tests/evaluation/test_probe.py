"""Whole probing runs on stored volumes: planted classes are found, and a killed run resumes."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import PIXELS, RANDOM
from ssl_pipeline.evaluation.config import Evaluate, Probe
from ssl_pipeline.evaluation.probes import Knn, Linear
from ssl_pipeline.evaluation.records import read_costs, read_results
from ssl_pipeline.evaluation.runner.probe import run_probe
from ssl_pipeline.evaluation.tasks import Classification, CropClassification, Segmentation
from ssl_pipeline.volumes.readers import Source, read_volume
from tests.evaluation.conftest import QUICK_PROBE

CORNER = Classification(title="Corner", target="corner", classes={0: "no", 1: "yes"})
BLOBS = CropClassification(title="Blobs", label="blobs", classes={3: "bright", 5: "dark"})


def only(results, **wanted):
    found = [r for r in results.rows if all(getattr(r, k) == v for k, v in wanted.items())]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("task", [CORNER, BLOBS], ids=lambda task: task.kind)
def test_what_is_planted_is_found_by_pixels_and_pca(planted, tmp_path, task):
    results = run_probe(task, QUICK_PROBE, planted.context(tmp_path))
    for method in ("knn", "linear"):
        row = only(results, method=method, initialization="pixels + PCA", subjects=0)
        assert row.mean > 0.95
        assert row.low <= row.mean <= row.high
        assert list(row.per_class) == list(task.class_names)
    assert len(results.rows) == 2 * 3 * 2
    assert len(results.differences) == 2 * 2 * 2
    assert (results.n_train_subjects, results.n_test_subjects) == (8, 10)
    assert results == read_results(tmp_path)
    costs = read_costs(tmp_path).cells
    assert len(costs) == 2 * 3 * 2 * 3
    assert {cost.trained_parameters for cost in costs if cost.method == "knn"} == {0}


def test_a_pretrained_encoder_equal_to_random_weights_makes_no_difference(planted, tmp_path):
    context = planted.context(tmp_path)
    same = planted.context(
        tmp_path, encoder_factory=lambda init, seed: context.encoder_factory("x", 7)
    )
    results = run_probe(CORNER, QUICK_PROBE, same)
    for difference in results.differences:
        if difference.against == "random":
            assert (difference.mean, difference.low, difference.high) == (0, 0, 0)


def test_two_runs_write_the_same_bytes(planted, tmp_path):
    for name in ("a", "b"):
        run_probe(BLOBS, QUICK_PROBE, planted.context(tmp_path / name))
    first, second = ((tmp_path / n / "results.json").read_bytes() for n in ("a", "b"))
    assert first == second


def test_few_scored_subjects_get_no_interval_and_a_note(few, tmp_path):
    rows = [
        (f"s{i}", "train" if i < 4 else "test", {"odd": str(i % 2)}, {}, "one") for i in range(8)
    ]
    made = few(*rows)
    task = Classification(title="Odd", target="odd", classes={0: "even", 1: "odd"})
    results = run_probe(task, QUICK_PROBE, made.context(tmp_path / "out"))
    assert all(row.low is None and row.high is None for row in results.rows)
    assert all(d.low is None for d in results.differences)
    assert "Too few subjects are scored for an interval, 4" in " ".join(results.notes)
    assert "a probe has its default hyperparameters" in " ".join(results.notes)
    # The volumes are all the same, so nobody can do better than guess.
    assert all(abs(row.mean - 0.5) < 1e-9 for row in results.rows)


def test_hyperparameters_of_a_probe_are_chosen_in_folds_where_possible(planted, tmp_path):
    everyone = Evaluate(subjects=(0,))
    notes = run_probe(BLOBS, QUICK_PROBE, planted.context(tmp_path, evaluate=everyone)).notes
    assert not any("default hyperparameters" in note for note in notes)
    three = Evaluate(subjects=(3, 0))
    notes = run_probe(BLOBS, QUICK_PROBE, planted.context(tmp_path, evaluate=three)).notes
    assert any("default hyperparameters" in note for note in notes)
    nothing_to_choose = Probe(methods=(Knn(), Linear(c_values=(1.0,))))
    notes = run_probe(BLOBS, nothing_to_choose, planted.context(tmp_path, evaluate=three)).notes
    assert not any("default hyperparameters" in note for note in notes)


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from ssl_pipeline.evaluation.cells import PIXELS, RANDOM
from ssl_pipeline.evaluation.config import Evaluate, Probe
from ssl_pipeline.evaluation.runner.context import EvaluationContext
from ssl_pipeline.evaluation.runner.probe import run_probe
from ssl_pipeline.models import ViT
from ssl_pipeline.models.encoder import random_encoder

def encoder_factory(init, seed):
    if (init, seed) == ("random", 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return random_encoder(ViT(preset="tiny"), 1000 if init == "pretrained" else seed)

task, probe, reader, folder = pickle.loads(Path(sys.argv[1]).read_bytes())
label_file = lambda scan, name: folder / "labels" / f"{scan}-{name}.nii.gz"
evaluate = Evaluate(subjects=(2, 0))
initializations = {"pretrained": "of a test", RANDOM: "of all tests", PIXELS: ""}
context = EvaluationContext(reader.catalog, reader, label_file, evaluate, encoder_factory,
                            initializations, (16, 16, 16),
                            Path(sys.argv[2]), Path(sys.argv[2]) / "labels")
run_probe(task, probe, context)
"""


def test_a_killed_run_goes_on_where_it_was_and_ends_equal(planted, tmp_path):
    given, out = tmp_path / "given.pickle", tmp_path / "out"
    given.write_bytes(pickle.dumps((BLOBS, QUICK_PROBE, planted.reader, planted.folder)))
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(given), str(out)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("*.json")}
    assert len(before) == 2 * 2 * 4  # pretrained of three seeds, random of one
    assert not (out / "results.json").exists()

    asked = []

    def counted(init, seed):
        asked.append((init, seed))
        return planted.context(out).encoder_factory(init, seed)

    results = run_probe(BLOBS, QUICK_PROBE, planted.context(out, encoder_factory=counted))
    assert asked == [("random", 1), ("random", 2)]
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert results == run_probe(BLOBS, QUICK_PROBE, planted.context(tmp_path / "other"))


def test_a_cell_is_computed_again_when_what_it_depends_on_changes(small, tmp_path):
    evaluate = Evaluate(subjects=(0,))

    def asked_by(task=BLOBS, **changes):
        asked = []

        def counted(init, seed):
            asked.append((init, seed))
            return small.context(tmp_path).encoder_factory(init, seed)

        given = {"evaluate": evaluate, "encoder_factory": counted} | changes
        run_probe(task, QUICK_PROBE, small.context(tmp_path, **given))
        return len(asked)

    assert asked_by() == 4
    assert asked_by() == 0
    assert asked_by(BLOBS.model_copy(update={"title": "Another name"})) == 0
    assert asked_by(evaluate=Evaluate(subjects=(0,), confidence=0.9)) == 0
    other = {"pretrained": "of another", RANDOM: "of all tests", PIXELS: ""}
    assert asked_by(initializations=other) == 1  # random weights and pixels stay what they are
    assert asked_by(BLOBS.model_copy(update={"classes": {5: "dark", 3: "bright"}})) == 4


@pytest.mark.parametrize(
    ("task", "changes", "sentence"),
    [
        (Segmentation(title="S", label="blobs", classes={3: "b"}), {}, "of kind segmentation"),
        (BLOBS, {"crop_voxels": (16, 12, 16)}, "no multiple of the encoder's patch"),
        (
            BLOBS.model_copy(update={"classes": {3: "b", 9: "c"}}),
            {},
            "training subjects show only 'b'",
        ),
        (BLOBS.model_copy(update={"classes": {8: "b", 9: "c"}}), {}, "none of the classes"),
        (BLOBS.model_copy(update={"label": "other"}), {}, "is empty for every scan"),
    ],
)
def test_a_task_that_cannot_be_probed_is_refused(planted, tmp_path, task, changes, sentence):
    with pytest.raises(UserError) as refused:
        run_probe(task, QUICK_PROBE, planted.context(tmp_path, **changes))
    assert sentence in str(refused.value)


def test_real_pairs_of_one_subject_stay_together(data_folder, store_volumes, tmp_path):
    """Public MR crops whose files come in pairs, the two sides of one subject."""
    rows, folder = [], data_folder / "hippocampus"
    files = sorted((folder / "images").glob("*.nii.gz"))
    number = {file: int(file.name.split(".")[0].split("_")[-1]) for file in files}
    labelled = [f for f in files if (folder / "labels" / f.name).exists()][:28]
    subjects = sorted({(number[file] + 1) // 2 for file in labelled})
    for file in labelled:
        subject = (number[file] + 1) // 2
        rows.append(
            {
                "subject": str(subject),
                "split": "train" if subject in subjects[:4] else "test",
                "volume": read_volume(Source(file)),
                "labels": {"parts": str(folder / "labels" / file.name)},
                "number": number[file],
            }
        )
    made = store_volumes(rows)
    task = CropClassification(title="Parts", label="parts", classes={1: "anterior", 2: "posterior"})
    results = run_probe(task, QUICK_PROBE, made.context(tmp_path / "out"))
    assert results.n_test_subjects == len(subjects) - 4
    row = only(results, method="linear", initialization="pixels + PCA", subjects=0)
    assert row.mean > 0.8
    cell = json.loads((tmp_path / "out" / "cells" / "linear-pretrained-0-0.json").read_text())
    assert {p["subject"] for p in cell["predictions"]} == {str(s) for s in subjects[4:]}
