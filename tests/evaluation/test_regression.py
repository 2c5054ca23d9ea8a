"""Regression tasks: probing, fine-tuning, metrics and validation."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import r2_score
from torch import nn

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import PIXELS
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Probe
from ssl_pipeline.evaluation.data.label_maps import LabelMaps
from ssl_pipeline.evaluation.metrics.regression import score_regression
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.probes.sweep import Sweep
from ssl_pipeline.evaluation.runner.finetune import run_finetune
from ssl_pipeline.evaluation.runner.probe import run_probe
from ssl_pipeline.evaluation.tasks.regression import Regression
from ssl_pipeline.preprocess.prepare import PreparedVolume
from tests.evaluation.conftest import QUICK_LINEAR

CORNER = Regression(title="How bright the corner is", target="corner")
ALL = Evaluate(subjects=(0,))


def test_a_number_has_no_entropy(planted):
    (entry, *_) = planted.catalog.entries
    volume = PreparedVolume(planted.reader.read_volume(entry.id), entry.meta)
    predictor = CORNER.predictor([nn.Identity()], Finetune(), (16, 16, 16))
    with pytest.raises(UserError, match="predicts a number"):
        predictor.entropy(volume)


def test_r2_is_that_of_scikit_learn_and_the_parts_average_about_it():
    rng = np.random.default_rng(0)
    truth = rng.normal(50, 10, 60)
    predicted = truth + rng.normal(0, 5, 60)
    subjects = [f"s{n}" for n in range(30)]
    of = [subjects[n // 2] for n in range(60)]
    found = score_regression(subjects, of, truth, predicted).metrics
    assert found["r_squared"].value == pytest.approx(r2_score(truth, predicted))
    assert found["r_squared"].pseudovalues.mean() == pytest.approx(
        found["r_squared"].value, abs=0.02
    )
    assert found["mean_absolute_error"].value == pytest.approx(np.abs(truth - predicted).mean())
    constant = score_regression(subjects, of, truth, np.full(60, truth.mean())).metrics
    assert constant["r_squared"].value == pytest.approx(0)


def test_r2_of_equal_numbers_is_not_defined():
    found = score_regression(["a", "b"], ["a", "b"], np.ones(2), np.zeros(2))
    assert np.isnan(found.metrics["r_squared"].value)


def test_the_volume_of_a_label_is_in_millilitres(planted, tmp_path):
    entry, labels = planted.catalog.entries[0], LabelMaps(tmp_path, planted.label_file)
    image = nib.load(planted.label_file(entry.id, "blobs"))
    drawn, voxel = np.asarray(image.dataobj), np.prod(image.header.get_zooms())
    for classes, counted in (({}, drawn > 0), ({5: "dark"}, drawn == 5)):
        task = Regression(title="Volume", label="blobs", classes=classes)
        (crop,) = task.labelled_crops([entry], labels, (16, 16, 16), 0)
        assert crop.target == pytest.approx(counted.sum() * voxel / 1000, rel=1e-6)


def test_the_volume_of_a_label_counts_what_the_crop_cuts_off(store_volumes, anatomy, tmp_path):
    body, label = (np.zeros(anatomy.data.shape, np.uint8) for _ in range(2))
    body[8:12, 8:20, 8:20] = 1
    label[10:26, 8:12, 9:12] = 2  # the crop ends at 17
    path = tmp_path / "label.nii"
    nib.save(nib.Nifti1Image(label, anatomy.affine), path)
    study = store_volumes(
        [
            {
                "subject": "a",
                "split": "train",
                "volume": anatomy,
                "labels": {"organ": str(path)},
                "body": replace(anatomy, data=body),
            }
        ]
    )
    (entry,) = study.catalog.entries
    assert entry.shape[2] == 14
    task = Regression(title="Volume", label="organ")
    (crop,) = task.labelled_crops([entry], LabelMaps(tmp_path, study.label_file), (16,) * 3, 0)
    voxel_mm3 = abs(np.linalg.det(anatomy.affine[:3, :3]))
    assert crop.target == pytest.approx(16 * 4 * 3 * voxel_mm3 / 1000)


def test_numbers_are_probed(planted, tmp_path):
    context = planted.context(tmp_path, evaluate=ALL, initializations={PIXELS: ""})
    results = run_probe(CORNER, Probe(methods=(Linear(), Sweep())), context)
    assert results.metric == "r_squared" and results.classes == ()
    pixels = {r.method: r.mean for r in results.rows if r.initialization == "pixels + PCA"}
    assert pixels["linear"] > 0.8 and pixels["sweep"] > 0.5
    cell = json.loads((tmp_path / "cells/linear-pixels-0-0.json").read_text())
    assert {"target", "value"} <= set(cell["predictions"][0])


def test_numbers_are_learned_by_fine_tuning(planted, tmp_path):
    settings = Finetune(
        steps=60, batch_size=8, learning_rate=3e-3, keep_networks="all", resnet_baseline=False
    )
    initializations = {"pretrained": "of a test", PIXELS: ""}
    context = planted.context(tmp_path, evaluate=ALL, initializations=initializations)
    results = run_finetune(CORNER, settings, context)
    means = {r.initialization: r.mean for r in results.rows}
    assert means["pretrained"] > 0.5 and means["pixels + PCA"] > 0.8
    assert {"r_squared", "mean_absolute_error"} == {
        *results.rows[0].other_metrics,
        results.metric,
    }


def test_one_source_of_the_number_is_asked_for():
    for given in ({}, {"target": "age", "label": "blobs"}):
        with pytest.raises(ValidationError, match="either target or label"):
            Regression(title="T", **given)
    with pytest.raises(ValidationError, match="leave them out"):
        Regression(title="T", target="age", classes={1: "one"})


@pytest.mark.parametrize("age", ["old", "1e300", "-1e300", "inf", "nan"])
def test_words_and_numbers_beyond_all_scores_are_refused(age, few, tmp_path):
    rows = [("a", "train", {"age": "61"}, {}, "one"), ("b", "test", {"age": age}, {}, "one")]
    task = Regression(title="Age", target="age")
    with pytest.raises(UserError, match=f"'{age}', which is no number up to 1e.30: leave it empty"):
        run_probe(task, Probe(), few(*rows).context(tmp_path / "out"))


def test_an_age_of_a_header_is_a_number_in_years(few, tmp_path):
    setting = few(("a", "train", {"age": "061Y"}, {}, "one"))
    task = Regression(title="Age", target="age")
    (entry,) = task.usable_entries(setting.catalog.entries)
    (crop,) = task.labelled_crops([entry], LabelMaps(tmp_path, setting.label_file), (8, 8, 8), 0)
    assert crop.target == 61


def test_equal_numbers_are_refused(few, tmp_path):
    rows = [
        (name, split, {"age": "61"}, {}, "one") for name, split in (("a", "train"), ("b", "test"))
    ]
    task = Regression(title="Age", target="age")
    with pytest.raises(UserError, match="61 for all training subjects"):
        run_probe(task, Probe(), few(*rows).context(tmp_path / "out"))


def test_a_row_without_a_score_is_written_as_null_and_named(planted, tmp_path):
    """As of a target that was too large when its cells were computed."""
    linear = Probe(methods=(QUICK_LINEAR,))
    run_probe(CORNER, linear, planted.context(tmp_path, evaluate=ALL))
    for path in (tmp_path / "cells").glob("linear-pixels-*.json"):
        cell = json.loads(path.read_text())
        cell["predictions"][0]["value"] = 1e200
        path.write_text(json.dumps(cell))
    results = run_probe(CORNER, linear, planted.context(tmp_path, evaluate=ALL))
    (row,) = (r for r in results.rows if r.initialization == "pixels + PCA")
    assert row.mean is None and set(row.per_seed) == {None}
    assert all(r.mean is not None for r in results.rows if r is not row)
    assert any(note.startswith("linear of pixels + PCA with all") for note in results.notes)
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
