"""Features of a folder: one table, in which nothing is lost, whatever the files are called."""

import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.export import embed
from ssl_pipeline.export.stored_values import ScanHints
from ssl_pipeline.volumes.readers import find_sources
from stages.cli import main
from stages.commands.embed import embed_all, embed_folder, finished_scans
from stages.commands.export import export_to_format
from tests.conftest import write_scans

MR = ScanHints(modality="MR")


@pytest.fixture
def scans(tmp_path):
    write_scans(tmp_path / "raw", 2)
    return tmp_path / "raw/images"


def rows_of(path):
    return pq.read_table(path).to_pylist()


def test_a_whole_folder_becomes_one_table(bundle, scans, tmp_path):
    (scans / "broken.nii.gz").write_bytes(b"not a scan")
    words = ["embed", bundle, scans, "--modality", "MR", "--out", tmp_path / "f.parquet"]
    assert main([str(word) for word in words]) == 0
    rows = rows_of(tmp_path / "f.parquet")
    assert [row["path"] for row in rows] == ["broken.nii.gz", "person0.nii.gz", "person1.nii.gz"]
    assert [len(row["features"]) for row in rows] == [0, 128, 128]
    assert rows[0]["error"] and not rows[1]["error"]


def test_what_a_stopped_run_has_embedded_is_not_embedded_again(bundle, scans, tmp_path, capsys):
    out, unfinished = tmp_path / "f.parquet", tmp_path / "f.parquet.unfinished"
    embed_folder(bundle, scans, out, MR)
    whole = rows_of(out)
    assert not unfinished.exists()
    loaded = load_encoder(bundle)
    finished = finished_scans(loaded, out, MR)
    first = next(embed_all(loaded, scans, find_sources(scans), MR, finished))  # and is stopped then
    assert first["features"] == whole[0]["features"]
    capsys.readouterr()
    finished_scans(loaded, out, ScanHints(modality="MR", missing_value=0.0))
    said = capsys.readouterr().out
    assert "are of other settings, and are computed again" in said and "earlier start" not in said
    known = json.loads(unfinished.read_text())
    changed = json.dumps({**known, "result": {"features": [7.0] * 128}})
    unfinished.write_text(changed + '\n{"key": "cut')
    embed_folder(bundle, scans, out, MR)
    assert "1 scan of an earlier start known" in capsys.readouterr().out
    assert rows_of(out)[0]["features"] == [7.0] * 128, "the first is taken as it was found"
    assert rows_of(out)[1] == whole[1]
    assert not unfinished.exists()


def test_a_changed_scan_is_embedded_again(bundle, scans, tmp_path):
    out = tmp_path / "f.parquet"
    loaded = load_encoder(bundle)
    list(embed_all(loaded, scans, find_sources(scans), MR, finished_scans(loaded, out, MR)))
    shutil.copy(scans / "person1.nii.gz", scans / "person0.nii.gz")
    embed_folder(bundle, scans, out, MR)
    first, second = rows_of(out)
    assert first["features"] == second["features"]


def test_a_file_that_cannot_be_written_is_told_before_anything_is_computed(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    for out, said in (
        (tmp_path, "is a folder: name the file"),
        (tmp_path / "file/f.parquet", "is no folder to write to"),
    ):
        with pytest.raises(UserError, match=said):
            embed_folder(tmp_path / "no bundle", tmp_path, out, MR)
    (tmp_path / "e.pt").mkdir()
    with pytest.raises(UserError, match="is a folder: name the file"):
        export_to_format(tmp_path / "no bundle", "state_dict", tmp_path / "e.pt")


def test_a_name_that_is_not_utf8_is_escaped_and_its_scan_embedded(bundle, scans, tmp_path, capsys):
    os.rename(scans / "person0.nii.gz", os.fsencode(scans) + b"/m\xfcller.nii.gz")
    os.rename(scans / "person1.nii.gz", os.fsencode(scans) + b"/m\xe4rz.nii.gz")
    with open(os.fsencode(scans) + b"/m\xe4rz.nii.gz", "wb") as file:
        file.write(b"not a scan")
    embed_folder(bundle, scans, tmp_path / "f.parquet", MR)
    broken, scan = rows_of(tmp_path / "f.parquet")
    assert (broken["path"], scan["path"]) == (r"m\xe4rz.nii.gz", r"m\xfcller.nii.gz")
    assert r"m\xe4rz" in broken["error"] and np.isfinite(scan["features"]).all()
    assert "1 scan embedded, 1 failed" in capsys.readouterr().out


def test_a_pass_of_the_encoder_is_bounded_by_voxels_and_its_features_are_the_same(
    bundle, scans, monkeypatch
):
    most = {size: embed.crops_at_once((size,) * 3) for size in (16, 64, 96, 128, 256)}
    assert most == {16: 32, 64: 8, 96: 2, 128: 1, 256: 1}
    loaded, source = load_encoder(bundle), find_sources(scans)[0]
    prepared = embed.prepare_source(loaded.manifest, source, MR)
    whole, passes = loaded.embed_prepared(prepared), []
    loaded.model.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    monkeypatch.setattr(embed, "MAX_BATCH_VOXELS", 5 * 16**3)
    parts = loaded.embed_prepared(prepared)
    assert passes == [5, 5, 5, 3]
    np.testing.assert_allclose(parts.tokens, whole.tokens, atol=1e-4)
