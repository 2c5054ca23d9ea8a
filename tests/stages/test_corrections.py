"""Corrections flow back: finished labels are read, recorded, and rerun what depends on them."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.records import read_results
from ssl_pipeline.review.next_labels.work_folder import FINISHED_LABELS
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.volumes.inventory import Inventory
from ssl_pipeline.volumes.label_versions import read_label_versions
from stages.core import layout
from stages.core.records import read_completion
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from stages.returned_labels import returned_labels, returned_labels_hash

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
    assert "1 label changed" in said and "1 by anna" in said
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
    assert "1 label changed, as the inventory of" in page and "(1 by anna)" in page
    run_stage("report", study, {})
    assert (
        "1 label changed, as the inventory of" in (study.folder / "report/report.html").read_text()
    )
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
