"""Whole fine-tuning runs on stored volumes, for classes and for voxels."""

import gzip
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import PIXELS
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Probe
from ssl_pipeline.evaluation.decoders.light import Light
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.records import FailedCell, read_costs
from ssl_pipeline.evaluation.runner.finetune import run_finetune
from ssl_pipeline.evaluation.runner.probe import run_probe
from ssl_pipeline.evaluation.tasks import CropClassification, Segmentation

BLOBS = CropClassification(title="Blobs", label="blobs", classes={3: "bright", 5: "dark"})
VOXELS = Segmentation(title="Voxels", label="blobs", classes={3: "bright", 5: "dark"})
BRIEF = Finetune(
    steps=2, batch_size=8, overlap=0, decoder=Light(), keep_predictions="none"
)  # for voxels
QUICK = Finetune(steps=3, batch_size=8)  # for crops, where nothing need be learned
SHORT = Finetune(head_lr_factor=1, steps=18, batch_size=8, learning_rate=1e-3)
ALL = Evaluate(subjects=(0,))


def mean(results, init):
    (row,) = [r for r in results.rows if r.initialization == init]
    return row.mean


def test_classes_are_learned_beside_random_weights_and_baselines(planted, tmp_path):
    context = planted.context(tmp_path, evaluate=ALL)
    results = run_finetune(BLOBS, SHORT, context)
    assert {(r.method, r.initialization) for r in results.rows} == {
        ("full", "pretrained"),
        ("full", "random"),
        ("baseline", "pixels + PCA"),
        ("baseline", "small ResNet"),
    }
    assert all(row.mean > 0.9 for row in results.rows)
    costs = read_costs(tmp_path).cells
    trained = {cost.initialization: cost.trained_parameters for cost in costs}
    assert trained["pretrained"] == trained["random"] > trained["pixels + PCA"] > 0


def test_the_same_seed_gives_the_same_bytes_and_skips_what_is_there(small, tmp_path):
    for name in ("a", "b", "a"):
        run_finetune(BLOBS, QUICK, small.context(tmp_path / name, evaluate=ALL))
    first, second = ((tmp_path / n / "results.json").read_bytes() for n in ("a", "b"))
    assert first == second


def test_a_segmentation_learns_and_comes_back_in_the_scans_own_grid(small, tmp_path):
    settings = Finetune(steps=80, batch_size=4, learning_rate=3e-3, overlap=0.25, decoder=Light())
    initializations = {"pretrained": "of a test", PIXELS: ""}
    context = small.context(tmp_path, evaluate=ALL, initializations=initializations)
    results = run_finetune(VOXELS, settings, context)
    assert results.metric == "mean_dice"
    assert mean(results, "pixels + PCA") > 0.5
    assert mean(results, "pretrained") > 0.3
    written = sorted((tmp_path / "predictions").rglob("*.nii.gz"))
    test = [e for e in small.catalog.entries if e.split == "test"]
    assert len(written) == 2 * len(test)  # two starts, the first seed
    for entry in test:
        path = tmp_path / "predictions" / "baseline-pixels-0-0" / f"{entry.id}.nii.gz"
        own, found = nib.load(small.label_file(entry.id, "blobs")), nib.load(path)
        assert found.shape == own.shape
        assert np.allclose(found.affine, own.affine)
        values, truth = np.asarray(found.dataobj), np.asarray(own.dataobj)
        assert set(np.unique(values)) <= {0, 3, 5}
        overlap = ((values == 3) & (truth == 3)).sum() / max((truth == 3).sum(), 1)
        assert overlap > 0.3


def test_a_lost_prediction_is_made_again_and_equal(small, tmp_path):
    settings = BRIEF.model_copy(update={"keep_predictions": "first seed"})
    context = small.context(tmp_path, evaluate=ALL, initializations={"pretrained": "of a test"})
    run_finetune(VOXELS, settings, context)
    path = next((tmp_path / "predictions").rglob("*.nii.gz"))
    before = gzip.decompress(path.read_bytes())
    path.unlink()
    run_finetune(VOXELS, settings, context)
    assert gzip.decompress(path.read_bytes()) == before


@pytest.mark.parametrize("means", ["absent", "not annotated"])
def test_scans_without_annotation_of_a_class_do_not_count_for_it(small, tmp_path, means):
    """Dark blobs are erased from half of the label files, and predictions of them are no errors."""
    for entry in small.catalog.entries:
        own = nib.load(small.label_file(entry.id, "blobs"))
        kept = np.asarray(own.dataobj).copy()
        if int(entry.subject[1:]) % 2:
            kept[kept == 5] = 0
        nib.save(nib.Nifti1Image(kept, own.affine), tmp_path / f"{entry.id}.nii.gz")
    task = VOXELS.model_copy(update={"missing_class_means": means})
    erased = lambda scan, name: tmp_path / f"{scan}.nii.gz"  # noqa: E731
    changes = {"evaluate": ALL, "label_file": erased, "initializations": {PIXELS: ""}}
    context = small.context(tmp_path / "out", **changes)
    run_finetune(task, BRIEF, context)
    cell = json.loads((tmp_path / "out/cells/baseline-pixels-0-0.json").read_text())
    for row in cell["predictions"]:
        if int(row["subject"][1:]) % 2:
            assert row["dice"][1] is None if means == "not annotated" else row["dice"][1] == 0
        else:
            assert row["dice"][1] > 0.2


def with_external_predictions(small, tmp_path, left_out=""):
    """A context with external predictions of the scored scans: bright blobs right, none dark."""
    entries = [
        replace(e, labels={**e.labels, "other": e.split == "test" and e.id != left_out})
        for e in small.catalog.entries
    ]

    def label_file(scan, name):
        own = small.label_file(scan, "blobs")
        if name == "blobs":
            return own
        image, path = nib.load(own), tmp_path / f"{scan}.nii.gz"
        values = np.asarray(image.dataobj) * (np.asarray(image.dataobj) == 3)
        nib.save(nib.Nifti1Image(values.astype(np.uint8), image.affine), path)
        return path

    catalog = type(small.catalog)(tuple(entries))
    initializations = {"pretrained": "of a test", PIXELS: ""}
    changes = {
        "evaluate": ALL,
        "catalog": catalog,
        "label_file": label_file,
        "initializations": initializations,
    }
    return small.context(tmp_path / "out", **changes)


def test_external_predictions_have_a_row_of_their_own(small, tmp_path):
    task = VOXELS.model_copy(update={"external_predictions": "other"})
    results = run_finetune(task, BRIEF, with_external_predictions(small, tmp_path))
    (row,) = [row for row in results.rows if row.initialization == "external predictions"]
    assert row.per_class == {"bright": 1.0, "dark": 0.0}
    assert row.mean == 0.5 and row.sd_seeds is None
    cell = json.loads((tmp_path / "out/cells/baseline-external-0-0.json").read_text())
    assert cell["encoder"] == ""  # which no change of encoders makes stale
    (against,) = [d for d in results.differences if d.against == "external predictions"]
    (own,) = [row for row in results.rows if row.initialization == "pretrained"]
    assert against.mean == pytest.approx(own.mean - 0.5, abs=1e-5)


def test_a_truth_beyond_the_crop_counts_against_what_cannot_predict_it(
    store_volumes, anatomy, tmp_path
):
    """External predictions that are right everywhere score 1; the baseline sees the crop alone."""
    body, label = (np.zeros(anatomy.data.shape, np.uint8) for _ in range(2))
    body[8:12, 8:20, 8:20] = 1  # cropped with 5 voxels around it: x ends at 17
    label[10:26, 8:12, 9:12] = 1
    affine = anatomy.affine.copy()
    affine[:3, :3] = [[0, 0, 4.0], [-1.5, 0, 0], [0, 2.0, 0]]
    path = tmp_path / "label.nii"
    nib.save(nib.Nifti1Image(label, affine), path)
    bright = replace(anatomy, data=np.where(label, 4000, anatomy.data), affine=affine)
    row = {"volume": bright, "body": replace(bright, data=body)}
    row["labels"] = {"organ": str(path), "other": str(path)}
    study = store_volumes(
        [row | {"subject": name, "split": "train" if name < "c" else "test"} for name in "abcd"]
    )
    task = Segmentation(title="T", label="organ", classes={1: "o"}, external_predictions="other")
    changes = {"evaluate": ALL, "initializations": {PIXELS: ""}}
    run_finetune(task, Finetune(steps=1), study.context(tmp_path / "out", **changes))
    (external, *_), (own, *_) = (
        json.loads((tmp_path / f"out/cells/baseline-{name}-0-0.json").read_text())["predictions"]
        for name in ("external", "pixels")
    )
    assert external["dice"] == [1.0] and external["hd95_mm"] == [0.0]
    inside, whole = 7 * 12, 16 * 12
    assert own["dice"][0] <= 2 * inside / (inside + whole)
    assert own["dice"][0] > 0.2
    assert own["hd95_mm"][0] >= 9 * 1.5 - 1e-6  # voxels of the file: 1.5 mm along its x


def test_a_scan_without_external_prediction_is_named(small, tmp_path):
    task = VOXELS.model_copy(update={"external_predictions": "other"})
    scan = next(e.id for e in small.catalog.entries if e.split == "test")
    context = with_external_predictions(small, tmp_path, left_out=scan)
    with pytest.raises(UserError, match=f"scan {scan} has no label 'other'"):
        run_finetune(task, BRIEF, context)


def failing_context(small, tmp_path, **changes):
    """A context whose random weights of seed 1 fail."""

    def encoder_factory(init, seed):
        if (init, seed) == ("random", 1):
            raise RuntimeError("out of memory on /secret/place")
        return small.context(tmp_path).encoder_factory(init, seed)

    given = {"evaluate": ALL, "encoder_factory": encoder_factory, "redact": redact} | changes
    return small.context(tmp_path, **given)


def redact(text):
    return text.replace("/secret/place", "a scan")


def test_a_cell_that_fails_is_reported_and_computed_again_alone(small, tmp_path):
    results = run_finetune(BLOBS, QUICK, failing_context(small, tmp_path))
    (failed,) = results.failed
    assert failed == FailedCell(
        method="full",
        initialization="random",
        subjects=0,
        seed=1,
        reason="RuntimeError: out of memory on a scan",
    )
    assert {r.initialization for r in results.rows} == {
        "pretrained",
        "pixels + PCA",
        "small ResNet",
    }
    assert {d.against for d in results.differences} == {"pixels + PCA", "small ResNet"}
    assert "full-random-0-1 failed: RuntimeError: out of memory on a scan." in " ".join(
        results.notes
    )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    whole = run_finetune(BLOBS, QUICK, small.context(tmp_path, evaluate=ALL))
    again = [p.name for p, when in before.items() if p.stat().st_mtime_ns != when]
    assert again == ["full-random-0-1.json"]
    assert whole == run_finetune(BLOBS, QUICK, small.context(tmp_path / "b", evaluate=ALL))


def test_where_every_cell_fails_the_error_is_no_cells(small, tmp_path):
    def encoder_factory(init, seed):
        raise ZeroDivisionError("a bug")

    context = small.context(
        tmp_path,
        evaluate=ALL,
        encoder_factory=encoder_factory,
        initializations={"pretrained": "of a test"},
    )
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_finetune(BLOBS, QUICK, context)


def test_training_that_diverges_is_a_failure_and_no_score(small, tmp_path):
    wild = Finetune(steps=6, batch_size=4, learning_rate=1e30, warmup=0)
    results = run_finetune(BLOBS, wild, small.context(tmp_path, evaluate=ALL))
    assert {r.initialization for r in results.rows} == {"pixels + PCA"}
    assert len(results.failed) == 9
    assert all("training diverged" in cell.reason for cell in results.failed)


def test_the_baseline_of_pixels_has_one_score_beside_probes_and_fine_tuning(small, tmp_path):
    probe = Linear(c_values=(0.01, 0.1), fold_draws=2)
    changes = {"evaluate": ALL, "initializations": {PIXELS: ""}, "baseline_probe": probe}
    tuned = run_finetune(
        BLOBS,
        Finetune(steps=1, resnet_baseline=False),
        small.context(tmp_path / "finetune", **changes),
    )
    context = small.context(tmp_path / "probe", **changes)
    probed = run_probe(BLOBS, Probe(methods=(probe,)), context)
    (first,), (second,) = tuned.rows, probed.rows
    assert (first.initialization, first.per_seed) == (second.initialization, second.per_seed)
