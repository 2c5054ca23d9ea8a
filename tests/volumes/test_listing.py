"""The hash of the raw files changes with what they hold, and with nothing else."""

import os

import numpy as np
import pytest

from ssl_pipeline.volumes.dataset import Data
from ssl_pipeline.volumes.inventory import Inventory, take_inventory
from ssl_pipeline.volumes.listing import ABSENT, listing_hash, remember
from ssl_pipeline.volumes.origins import Origins
from ssl_pipeline.volumes.verdicts import Quality
from tests.volumes.writing import save_itk, save_nifti


@pytest.fixture
def raw(tmp_path):
    for name in ("a.nii", "deep/b.nii", "c.txt"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_text(name)
    return tmp_path / "raw"


def data_of(raw, **more):
    return Data.model_validate({"roots": [{"path": str(raw)}], **more})


def asked(raw, **more):
    return listing_hash(data_of(raw, **more), raw.parent, origins_of(raw).listing)


def origins_of(raw):
    return Origins(raw.parent / "private", "study", raw / "out")


def remembered(raw, inventory=None):
    origins = origins_of(raw)
    if inventory is None:
        origins.write([])
    remember(data_of(raw), raw.parent, origins, inventory or Inventory(()))


def test_asking_changes_nothing(raw):
    before = asked(raw)
    assert not (raw.parent / "private").exists()
    assert asked(raw) == before
    remembered(raw)
    assert asked(raw) == before


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
    before = asked(raw)
    remembered(raw)
    change(raw)
    os.utime(raw / "c.txt", (5, 5))
    after = asked(raw)
    assert after != before
    assert asked(raw) == after
    remembered(raw)
    assert asked(raw) == after


def test_a_touch_is_no_change(raw):
    before = asked(raw)
    remembered(raw)
    for seconds in (5, 50):
        os.utime(raw / "a.nii", (seconds, seconds))
        assert asked(raw) == before
    (raw / "a.nii").write_text("A.NII")
    assert asked(raw) != before


def test_a_touch_is_no_change_where_the_inventory_hashed_the_file(brain, tmp_path):
    raw = tmp_path / "raw"
    save_nifti(raw / "a.nii", brain.data, brain.affine)
    save_itk(raw / "b.mhd", brain.data + np.int16(1), brain.affine)
    before = asked(raw)
    remembered(raw, take_inventory(data_of(raw), Quality(), tmp_path, origins_of(raw)))
    for path in raw.iterdir():
        os.utime(path, (5, 5))
    assert asked(raw) == before
    (raw / "b.mhd").write_bytes((raw / "b.mhd").read_bytes().replace(b"2 2 2", b"2 2 3"))
    assert asked(raw) != before


def test_hidden_and_unfinished_files_do_not_count(raw):
    before = asked(raw)
    (raw / ".tmp-x").write_text("")
    (raw / ".hidden").mkdir()
    assert asked(raw) == before


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
    hashes = [asked(raw, **more)]
    (tmp_path / "seg" / "a.nii").write_text("")
    hashes.append(asked(raw, **more))
    (tmp_path / "t.csv").write_text("path\nraw/deep/b.nii\n")
    hashes.append(asked(raw, **more))
    (tmp_path / "test.txt").write_text("2\n")
    hashes.append(asked(raw, **more))
    assert len(set(hashes)) == 4


def test_files_that_only_a_table_names_count(raw):
    (raw.parent / "t.csv").write_text("path\nraw/a.nii\nraw/deep\n")
    data = Data(table="t.csv")
    before = listing_hash(data, raw.parent, raw.parent / "r.json")
    (raw / "deep" / "new.nii").write_text("")
    assert listing_hash(data, raw.parent, raw.parent / "r.json") != before


def test_what_is_not_there_yet(raw, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    assert asked(raw / "absent") == ABSENT
    assert asked(raw, roots=[{"path": "$NOT_SET/x"}]) == ABSENT
    assert asked(raw, table="absent.csv") == ABSENT
