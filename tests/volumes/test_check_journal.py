"""An inventory that is killed goes on from the scans that it has checked."""

import pytest

from ssl_pipeline.progress import read_progress, record_progress
from ssl_pipeline.volumes import scan_check
from ssl_pipeline.volumes.check_journal import CheckJournal
from ssl_pipeline.volumes.inventory import build_inventory
from ssl_pipeline.volumes.quality_control import QualityThresholds
from tests.volumes.inventory_helpers import build, data_of, pseudonyms_of


def build_with(folder, journal, **thresholds):
    section = QualityThresholds(**thresholds)
    data = data_of(folder, {"duplicate_threshold": 1.4})
    return build_inventory(data, section, folder, pseudonyms_of(folder), journal=journal)


@pytest.fixture
def journal(folder):
    return CheckJournal(folder / "out.jsonl")


@pytest.fixture
def opened(monkeypatch):
    """The files whose voxels are read."""
    paths = []
    read_volume = scan_check.readers.read_volume

    def read(source):
        paths.append(source.path.name)
        return read_volume(source)

    monkeypatch.setattr(scan_check.readers, "read_volume", read)
    return paths


def kill_after(monkeypatch, count):
    """The machine dies when so many scans were checked."""
    append, done = CheckJournal.append, []

    def append_or_die(self, scan_id, check):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(scan_id)
        append(self, scan_id, check)

    monkeypatch.setattr(CheckJournal, "append", append_or_die)
    return append


def test_what_was_checked_before_a_kill_is_not_read_again(folder, journal, opened, monkeypatch):
    (folder / "raw" / "s_00.nii").write_bytes(b"no image")
    append = kill_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        build_with(folder, journal)
    monkeypatch.setattr(CheckJournal, "append", append)
    with open(folder / "out.jsonl", "ab") as file:
        file.write(b'\n{"id": "torn')
    opened.clear()
    resumed = build_with(folder, journal)
    assert len(opened) == 7 - 4
    fresh = build_with(folder, None)
    assert resumed == fresh and resumed.thumbnails == fresh.thumbnails
    for name, each in fresh.keypoints.items():
        assert resumed.keypoints[name].points.tobytes() == each.points.tobytes()
        assert resumed.keypoints[name].extent_mm == each.extent_mm
    opened.clear()
    build_with(folder, journal)
    assert set(opened) <= {"s_00.nii"}  # what was appended behind the torn line is whole


def test_a_check_of_other_files_or_thresholds_is_made_again(folder, journal, opened):
    build_with(folder, journal)
    (folder / "raw" / "s_01.nii.gz").write_bytes((folder / "raw" / "s_02.nii.gz").read_bytes())
    opened.clear()
    assert build_with(folder, journal).scans == build_with(folder, None).scans
    assert opened[0] == "s_01.nii.gz" and len(opened) == 1 + 6
    assert not build_with(folder, journal, min_axis_voxels=30).accepted_scans


def test_a_journal_that_is_removed_was_one_file(folder, journal):
    build_with(folder, journal)
    assert len(journal.read()) == 6
    journal.remove()
    assert not (folder / "out.jsonl").exists() and journal.read() == {}


def test_the_time_left_counts_the_bytes_of_scans(folder, tmp_path):
    with record_progress(tmp_path / "a.json", "Inventory"):
        build(data_of(folder), folder)
    record = read_progress(tmp_path / "a.json")
    assert (record.done, record.left_s) == (record.total, 0)
