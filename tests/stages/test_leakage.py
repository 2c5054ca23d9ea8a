"""Subjects of pretraining are refused in evaluation, also those of another study."""

import json
import shutil
from dataclasses import replace

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.volumes.inventory import Inventory
from stages.core.runner import run_stage
from stages.core.stage_runs import stage_runs
from stages.core.study_file import load_study
from tests.stages.conftest import copy_study

STORED = ("inventory", "preprocess")


def run_stages(study, *stages):
    """Run stages of the study in this file, such as "probe side"."""
    for name, *task in map(str.split, stages):
        run_stage(name, load_study(study), {"task": task[0]} if task else {})
    return study


def refusal_message(study):
    """What is said instead of a probe."""
    with pytest.raises(UserError) as refused:
        run_stages(study, "probe side")
    return str(refused.value)


def with_evaluate(study, words):
    text = study.read_text()
    line = next(line for line in text.splitlines() if line.startswith("evaluate:"))
    study.write_text(text.replace(line, line.replace("{", "{" + words + ", ")))


def without_segmentation(study):
    text = study.read_text()
    study.write_text(text[: text.index("  tissue:\n    kind")])


def entries_by_person(study):
    catalog = Catalog.read(study.folder / "preprocess" / "catalog.parquet")
    return {study.pseudonyms.origins[entry.id].subject_name: entry for entry in catalog.entries}


@pytest.fixture(scope="module")
def others(whole, tmp_path_factory):
    """Another study of the same scans: it holds out others, and evaluates the first encoder."""
    copied = copy_study(whole, tmp_path_factory.mktemp("others") / "copied")
    folder = copied.parent
    text = copied.read_text().replace("name: tiny", "name: other").replace("/out\n", "/elsewhere\n")
    (folder / "other.txt").write_text("0\n4\n")
    study = folder / "other.yaml"
    study.write_text(text.replace("test.txt", "other.txt"))
    without_segmentation(study)
    with_evaluate(study, f"encoders: {{theirs: {folder}/out/pretrain/encoder}}")
    return run_stages(study, *STORED)


@pytest.fixture
def other(others, tmp_path):
    """That study, stored, in a folder of its own."""
    return copy_study(others, tmp_path / "other")


def test_an_encoder_lists_its_training_subjects(copied):
    study = load_study(copied)
    said = training_subjects.read(study.encoder)
    people = entries_by_person(study)
    learned = [people[name] for name in "0123"]
    assert said.subjects == {entry.subject for entry in learned}
    assert said.scans == {entry.id for entry in learned}
    assert said.voxel_hashes == {entry.voxel_hash for entry in learned}
    assert said.salt_fingerprint == study.pseudonyms.salt_fingerprint


def test_a_pretraining_subject_is_refused_or_reported(copied):
    (copied.parent / "test.txt").write_text("0\n4\n")  # by hand, without pretraining anew
    message, study = refusal_message(run_stages(copied, *STORED)), load_study(copied)
    zero = entries_by_person(study)["0"].subject
    assert f"The encoder was pretrained on 1 subject of the split test, such as {zero}" in message
    assert (
        "raise training.cohort to pretrain anew, or set evaluate.allow_pretraining_subjects"
        in message
    )
    without_segmentation(copied)
    with_evaluate(copied, "allow_pretraining_subjects: true")
    run_stages(copied, "probe side", "finetune side", "report")
    results = json.loads((study.folder / "probe/side/results.json").read_text())
    assert "and evaluate.allow_pretraining_subjects lets them be evaluated" in results["warning"]
    page = (study.folder / "report/report.html").read_text()
    assert "Not reliable as it stands.</strong> The encoder was pretrained on 1 subject" in page


def test_another_study_recognises_pretraining_subjects(other):
    message = refusal_message(other)
    zero = entries_by_person(load_study(other))["0"].subject
    assert f"was pretrained on 1 subject of the split test, such as {zero}" in message
    assert "evaluate another encoder, or set evaluate.allow_pretraining_subjects" in message


def test_a_study_of_an_external_encoder_has_no_pretraining(other):
    (other.parent / "other.txt").write_text("4\n5\n")
    assert "pretrain" not in stage_runs(load_study(other))
    run_stages(other, *STORED, "probe side", "finetune side", "report")
    folder = load_study(other).folder
    assert json.loads((folder / "probe/side/results.json").read_text())["warning"] == ""
    page = (folder / "report/report.html").read_text()
    assert "Another study trained this encoder" in page and "/out/pretrain" not in page
    assert not (folder / "pretrain").exists()


def test_under_another_salt_equal_voxels_tell_and_the_rest_is_unknown(other):
    other.write_text(other.read_text() + f"private: {other.parent}/secret\n")
    shutil.rmtree(other.parent / "elsewhere")
    assert "1 subject of the split test" in refusal_message(run_stages(other, *STORED))
    (other.parent / "other.txt").write_text("4\n5\n")
    message = refusal_message(run_stages(other, *STORED))
    assert "coded with another salt" in message and "share the `private` folder" in message


def test_an_encoder_without_training_subjects_is_refused(other):
    encoder = other.parent / "out/pretrain/encoder"
    (encoder / training_subjects.FILE_NAME).unlink()
    assert "does not say which subjects it was trained on" in refusal_message(other)


def test_an_encoder_of_another_kind_is_refused(other):
    other.write_text(other.read_text().replace("foreground: all", "foreground: auto"))
    message = refusal_message(run_stages(other, *STORED))
    assert "trained with another `preprocess` than this study's" in message
    card = other.parent / "out/pretrain/encoder/encoder.json"
    written = card.read_text()
    card.write_text(written.replace('"registers": 0', '"registers": 4'))
    assert card.read_text() != written
    assert "trained with another `model` than this study's" in refusal_message(other)
    shutil.rmtree(other.parent / "out/pretrain/encoder")
    assert "is no encoder bundle" in refusal_message(other)


def test_a_scan_that_has_since_become_anothers_or_was_rejected_still_counts(study):
    scans = Inventory.read(study.folder / "inventory" / "scans.parquet").scans
    held, learned = (next(scan for scan in scans if scan.split == s) for s in ("test", "train"))
    rejected = replace(learned, subject=held.subject, quality="rejected")
    then = training_subjects.TrainingSubjects(
        frozenset({learned.subject}),
        frozenset({learned.id}),
        frozenset({learned.voxel_hash}),
        "salt",
    )
    assert then.overlapping_subjects([held, learned], "salt") == {learned.subject}
    assert then.overlapping_subjects([held, rejected], "salt") == {held.subject, learned.subject}
    assert then.overlapping_subjects([held, rejected], "another") == {held.subject}
    assert then.overlapping_subjects([held], "another") == set()


def test_a_scan_lost_during_a_run_is_still_listed(study, tmp_path):
    entries = Catalog.read(study.folder / "preprocess" / "catalog.parquet").entries
    training_subjects.write(tmp_path, ["gone", entries[0].id], entries, "salt")
    said = training_subjects.read(tmp_path)
    assert said.scans == {"gone", entries[0].id}
    assert said.subjects == {entries[0].subject} and said.voxel_hashes == {entries[0].voxel_hash}
