"""The fingerprint of the raw files changes with their content, and with nothing else."""

import os

import numpy as np
import pytest

from ssl_pipeline.volumes.config import Data
from ssl_pipeline.volumes.discovery import discover_scans
from ssl_pipeline.volumes.fingerprint import ABSENT, data_fingerprint, record_file_hashes
from ssl_pipeline.volumes.inventory import Inventory, build_inventory
from ssl_pipeline.volumes.pseudonyms import PseudonymStore, coder
from ssl_pipeline.volumes.quality_control import QualityThresholds
from tests.volumes.volume_writers import save_itk, save_nifti


@pytest.fixture
def raw(tmp_path):
    for name in ("a.nii", "deep/b.nii", "c.txt"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_text(name)
    return tmp_path / "raw"


def data_of(raw, **more):
    return Data.model_validate({"roots": [{"path": str(raw)}], **more})


def fingerprint_of(raw, **more):
    return data_fingerprint(data_of(raw, **more), raw.parent, pseudonyms_of(raw).file_hashes)


def pseudonyms_of(raw):
    return PseudonymStore(raw.parent / "private", "study", raw / "out")


def record_hashes(raw, inventory=None):
    origins = pseudonyms_of(raw)
    if inventory is None:
        origins.write([])
        states = discover_scans(data_of(raw), raw.parent, coder(b"salt")).file_states
        inventory = Inventory((), file_states=states)
    record_file_hashes(inventory, origins)


def test_asking_changes_nothing(raw):
    before = fingerprint_of(raw)
    assert not (raw.parent / "private").exists()
    assert fingerprint_of(raw) == before
    record_hashes(raw)
    assert fingerprint_of(raw) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: (raw / "new.nii").write_text(""),
        lambda raw: (raw / "a.nii").unlink(),
        lambda raw: (raw / "a.nii").rename(raw / "z.nii"),
        lambda raw: (raw / "a.nii").write_text("longer than it was"),
        lambda raw: (raw / "a.nii").write_text("A.NII"),
    ],
)
def test_a_change_is_noticed_with_and_without_a_record(change, raw):
    before = fingerprint_of(raw)
    record_hashes(raw)
    change(raw)
    os.utime(raw / "c.txt", (5, 5))
    after = fingerprint_of(raw)
    assert after != before
    assert fingerprint_of(raw) == after
    record_hashes(raw)
    assert fingerprint_of(raw) == after


def test_a_touch_is_no_change(raw):
    before = fingerprint_of(raw)
    record_hashes(raw)
    for seconds in (5, 50):
        os.utime(raw / "a.nii", (seconds, seconds))
        assert fingerprint_of(raw) == before
    (raw / "a.nii").write_text("A.NII")
    assert fingerprint_of(raw) != before


def test_a_touch_is_no_change_where_the_inventory_hashed_the_file(brain, tmp_path):
    raw = tmp_path / "raw"
    save_nifti(raw / "a.nii", brain.data, brain.affine)
    save_itk(raw / "b.mhd", brain.data + np.int16(1), brain.affine)
    before = fingerprint_of(raw)
    record_hashes(
        raw, build_inventory(data_of(raw), QualityThresholds(), tmp_path, pseudonyms_of(raw))
    )
    for path in raw.iterdir():
        os.utime(path, (5, 5))
    assert fingerprint_of(raw) == before
    (raw / "b.mhd").write_bytes((raw / "b.mhd").read_bytes().replace(b"2 2 2", b"2 2 3"))
    assert fingerprint_of(raw) != before


def test_a_file_that_changed_after_its_discovery_counts_by_its_time(raw):
    pseudonyms_of(raw).write([])
    states = discover_scans(data_of(raw), raw.parent, coder(b"salt")).file_states
    before = fingerprint_of(raw)
    (raw / "a.nii").write_text("A.NII")
    os.utime(raw / "a.nii", (5, 5))
    record_file_hashes(Inventory((), file_states=states), pseudonyms_of(raw))
    assert fingerprint_of(raw) != before


def test_hidden_and_unfinished_files_do_not_count(raw):
    before = fingerprint_of(raw)
    (raw / ".tmp-x").write_text("")
    (raw / ".hidden").mkdir()
    assert fingerprint_of(raw) == before


def test_labels_tables_and_lists_count(raw, tmp_path):
    (tmp_path / "seg").mkdir()
    (tmp_path / "t.csv").write_text("path\nraw/a.nii\n")
    (tmp_path / "test.txt").write_text("1\n")
    labels = {"x": {"path": str(tmp_path / "seg")}}
    more = {
        "roots": [{"path": str(raw), "labels": labels}],
        "table": "t.csv",
        "splits": {"lists": {"test": "test.txt"}},
    }
    hashes = [fingerprint_of(raw, **more)]
    (tmp_path / "seg" / "a.nii").write_text("")
    hashes.append(fingerprint_of(raw, **more))
    (tmp_path / "t.csv").write_text("path\nraw/deep/b.nii\n")
    hashes.append(fingerprint_of(raw, **more))
    (tmp_path / "test.txt").write_text("2\n")
    hashes.append(fingerprint_of(raw, **more))
    assert len(set(hashes)) == 4


def test_files_that_only_a_table_names_count(raw):
    (raw.parent / "t.csv").write_text("path\nraw/a.nii\nraw/deep\n")
    data = Data(table="t.csv")
    before = data_fingerprint(data, raw.parent, raw.parent / "r.json")
    (raw / "deep" / "new.nii").write_text("")
    assert data_fingerprint(data, raw.parent, raw.parent / "r.json") != before


def test_what_is_not_there_yet(raw, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    assert fingerprint_of(raw / "absent") == ABSENT
    assert fingerprint_of(raw, roots=[{"path": "$NOT_SET/x"}]) == ABSENT
    assert fingerprint_of(raw, table="absent.csv") == ABSENT
