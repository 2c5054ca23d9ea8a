"""Corrections flow back: finished labels are read, recorded, and rerun what depends on them."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.records import read_results
from ssl_pipeline.evaluation.runner.subject_splits import split_subjects
from ssl_pipeline.io.atomic import sha256_file
from ssl_pipeline.review.audit_log import AuditLog
from ssl_pipeline.review.next_labels.work_folder import FINISHED_LABELS
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.volumes.inventory import Inventory
from ssl_pipeline.volumes.label_versions import read_label_versions
from ssl_pipeline.volumes.review import pair_sha256, prediction_item
from stages.core import layout
from stages.core.records import read_completion
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from stages.returned_labels import returned_labels, returned_labels_hash
from tests.conftest import read_json
from tests.review.conftest import answer_of

REVIEW = """review:
  {accepted_share: 0, labels: false, planted_share: 0, repeated_share: 0,
   predictions: {path: predicted, label: tissue}}
"""
DATA_STAGES = ("inventory", "inventory_page", "preprocess")


@pytest.fixture
def study(copied):
    """The whole study, in a folder of its own."""
    return load_study(copied)


def finish(study, code, change, task="tissue"):
    """A reader's own version of a scan's label, as an annotation tool leaves it."""
    image = nib.load(study.pseudonyms.label_path(code, "tissue"))
    path = layout.work_folder(study, task) / FINISHED_LABELS / f"{code}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = change(np.asarray(image.dataobj)).astype("u1")
    path.write_bytes(gzip.compress(nib.Nifti1Image(voxels, image.affine).to_bytes()))
    return path


def sign(study, line):
    (layout.work_folder(study, "tissue") / "readers.csv").write_text(f"scan,reader\n{line}\n")


def a_scan(study, split):
    entries = Catalog.read(layout.catalog_table(study)).entries
    return next(entry for entry in entries if entry.split == split)


def swapped(voxels):
    return np.choose(np.clip(voxels, 0, 2), (0, 2, 1))


def states(folder):
    """When each file below a folder was written, but locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_correction_is_evaluated_again_and_no_encoder_is_trained_again(study, capsys):
    scan = a_scan(study, "test")
    before = read_results(study.stage_folder("finetune", {"task": "tissue"}))
    others = states(study.folder / "probe/side/cells")
    trained = states(study.folder / "pretrain/runs")
    key = read_completion(study.folder / "pretrain").key
    path = finish(study, scan.id, swapped)
    sign(study, f"{scan.id},anna")
    capsys.readouterr()
    for name in (*DATA_STAGES, "pretrain"):
        run_stage(name, study, {})
    said = capsys.readouterr().out
    assert "1 label had changed" in said and "1 by anna" in said
    assert "pretrain: nothing to do" in said and "0 of them new" in said
    assert read_completion(study.folder / "pretrain").key == key
    assert states(study.folder / "pretrain/runs") == trained
    assert study.pseudonyms.label_path(scan.id, "tissue") == path
    run_stage("probe", study, {"task": "side"})
    assert states(study.folder / "probe/side/cells") == others, "it does not read this label"
    run_stage("finetune", study, {"task": "tissue"})
    after = read_results(study.stage_folder("finetune", {"task": "tissue"}))
    assert {row.key: row.per_seed for row in after.rows} != {
        row.key: row.per_seed for row in before.rows
    }
    page = (study.folder / "inventory_page/inventory.html").read_text()
    assert "1 label had changed since the one before" in page and "(1 by anna)" in page
    run_stage("report", study, {})
    report = (study.folder / "report/report.html").read_text()
    assert "1 label had changed since the one before" in report
    (version,) = read_label_versions(layout.label_versions(study))
    assert (version.scan, version.kind, version.reader) == (scan.id, "corrected", "anna")


def test_without_a_new_label_nothing_is_said_and_nothing_runs(study, capsys):
    assert returned_labels_hash(study) == ""
    finish(study, a_scan(study, "train").id, swapped)
    run_stage("inventory", study, {})
    assert "1 unsigned" in capsys.readouterr().out
    run_stage("inventory", study, {})
    assert "nothing to do" in capsys.readouterr().out
    assert len(read_label_versions(layout.label_versions(study))) == 1


def test_a_finished_label_that_fits_nothing_has_one_sentence(study, capsys):
    scan = a_scan(study, "train")
    path = finish(study, scan.id, lambda voxels: voxels[:-1])
    path.rename(path.with_name("0123456789ab.nii.gz"))
    finish(study, scan.id, lambda voxels: np.zeros_like(voxels))
    run_stage("inventory", study, {})
    said = " ".join(capsys.readouterr().out.split())
    assert f"scan {scan.id}: label tissue (finished) is empty" in said
    assert "scan 0123456789ab: label tissue (finished) is of no scan of the study" in said
    inventory = Inventory.read(layout.inventory_table(study))
    (row,) = (each for each in inventory.scans if each.id == scan.id)
    assert row.labels == {"tissue": True} and row.label_versions["tissue"]["kind"] == "given"


def accept(study, scan, voxels):
    """A prediction for a scan, as `predict` leaves it, that a reader has accepted."""
    inventory = Inventory.read(layout.inventory_table(study))
    sha256 = next(each.sha256 for each in inventory.scans if each.id == scan.id)
    folder = study.source_folder / "predicted"
    folder.mkdir(exist_ok=True)
    image = nib.load(study.pseudonyms.origins[scan.id].path)
    path = folder / f"{scan.id}.nii.gz"
    path.write_bytes(gzip.compress(nib.Nifti1Image(voxels, image.affine).to_bytes()))
    table = folder / "predictions.csv"
    head = "path,series,error,warning,note,distance,scan_sha256,entropy,label_map,label_map_sha256"
    before = table.read_text() if table.exists() else f"{head}\n"
    row = f"{scan.id},,,,,0,{sha256},0.5,{path.name},{sha256_file(path)}\n"
    table.write_text(before + row)
    item = prediction_item(scan.id, sha256_file(path), study.pseudonyms.code)
    seen = pair_sha256((sha256, sha256_file(path)))
    answer = answer_of(
        item=item, content_sha256=seen, question="prediction_correct", answer="accept", codes=()
    )
    AuditLog(study.pseudonyms.study_folder).append("anna", answer)
    return path


@pytest.fixture
def partly_labelled(study_file):
    """A study in which a scan of train and one of test have no label, and want predictions."""
    study_file.write_text(study_file.read_text() + REVIEW)
    study = load_study(study_file)
    run_stage("inventory", study, {})
    scans = Inventory.read(layout.inventory_table(study)).scans
    hidden = [next(scan for scan in scans if scan.split == split) for split in ("train", "test")]
    for scan in hidden:
        study.pseudonyms.label_path(scan.id, "tissue").unlink()
    run_stage("inventory", study, {})
    return study, *hidden


def test_an_accepted_prediction_is_trained_on_and_nothing_is_scored_by_it(partly_labelled):
    study, train, test = partly_labelled
    voxels = np.random.default_rng(0).integers(0, 3, train.shape).astype("u1")
    paths = {scan.id: accept(study, scan, voxels) for scan in (train, test)}
    for name in ("inventory", "reviewed", "preprocess", "pretrain"):
        run_stage(name, study, {})
    scans = {scan.id: scan for scan in Inventory.read(layout.inventory_table(study)).scans}
    assert scans[train.id].label_versions["tissue"]["kind"] == "prediction"
    assert scans[train.id].label_versions["tissue"]["reader"] == "anna"
    assert study.pseudonyms.label_path(train.id, "tissue") == paths[train.id]
    assert not scans[test.id].label_versions
    with pytest.raises(UserError, match="has no file"):
        study.pseudonyms.label_path(test.id, "tissue")
    entries = Catalog.read(layout.catalog_table(study)).entries
    kinds = {e.split: e.label_versions.get("tissue", {}).get("kind") for e in entries}
    assert {split for split, kind in kinds.items() if kind == "prediction"} <= {"train"}
    split = split_subjects(study.tasks["tissue"], entries, "test")
    assert train.subject in split.train_subjects and test.subject not in split.test_subjects
    assert split.predicted_subjects == {train.subject}, "by whom nothing is chosen"
    run_stage("finetune", study, {"task": "tissue"})
    results = read_results(study.stage_folder("finetune", {"task": "tissue"}))
    assert results.rows and results.n_test_subjects == 1
    out = study.stage_folder("finetune", {"task": "tissue"})
    cells = [read_json(path) for path in (out / "cells").glob("*.json")]
    scored = {each["subject"] for cell in cells for each in cell["predictions"]}
    assert scored == {entry.subject for entry in entries if entry.split == "test"} - {test.subject}


def test_predictions_are_no_labels_unless_the_study_says_so(partly_labelled, study_file):
    study, train, _ = partly_labelled
    accept(study, train, np.ones(train.shape, "u1"))
    study_file.write_text(study_file.read_text().replace(", label: tissue", ""))
    assert returned_labels(load_study(study_file)) == []


def test_an_accepted_prediction_that_is_gone_or_another_has_a_sentence(partly_labelled, capsys):
    study, train, _ = partly_labelled
    voxels = np.random.default_rng(0).integers(0, 3, train.shape).astype("u1")
    path = accept(study, train, voxels)
    path.unlink()
    run_stage("inventory", study, {})
    said = " ".join(capsys.readouterr().out.split())
    assert f"scan {train.id}: label tissue (prediction, anna) is gone: predict again" in said
    accept(study, train, voxels)
    path.write_bytes(path.read_bytes() + b" ")
    run_stage("inventory", study, {})
    said = " ".join(capsys.readouterr().out.split())
    assert "label tissue (prediction, anna) or its scan was changed since: ask a reader" in said


def test_a_label_for_predictions_that_no_task_reads_is_refused(study_file):
    study_file.write_text(study_file.read_text() + REVIEW.replace("tissue", "tisue"))
    with pytest.raises(UserError, match="label is 'tisue', which no task reads; did you mean tiss"):
        returned_labels(load_study(study_file))


def test_a_label_of_a_task_that_reads_none_is_refused(study):
    finish(study, a_scan(study, "train").id, swapped, task="side")
    with pytest.raises(UserError, match="labels/final has labels, and task side reads none"):
        returned_labels(study)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("scan,reader\n0123456789ab,Anna Müller\n", "'Anna Müller' for scan 0123456789ab"),
        ("0123456789ab,anna\n", "does not begin with the line scan,reader"),
        ("scan,reader\n0123456789ab\n", "has None for scan 0123456789ab"),
    ],
)
def test_a_table_of_readers_that_cannot_be_used_has_a_sentence(study, text, sentence):
    finish(study, a_scan(study, "train").id, swapped)
    (layout.work_folder(study, "tissue") / "readers.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        returned_labels(study)
