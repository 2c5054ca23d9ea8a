"""What is written opens with any Zarr library, and is whole or absent."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr

from ssl_pipeline.store.layout import DIMENSIONS, StoreSettings, read_attributes
from ssl_pipeline.store.verify import find_damage
from ssl_pipeline.store.writer import read_complete_attributes, write_volume

FOREVER = """
import sys
from pathlib import Path
import numpy as np
from ssl_pipeline.preprocess.prepare import PreparedVolume, VolumeMeta
from ssl_pipeline.store.layout import StoreSettings, read_attributes
from ssl_pipeline.store.writer import write_volume
folder = Path(sys.argv[1])
meta = read_attributes(folder / "model.zarr").meta
data = np.load(folder / "data.npy")
number = 0
while True:
    write_volume(folder / "a.zarr", PreparedVolume(data, meta), StoreSettings(), f"key {number}")
    number += 1
    print(number, flush=True)
"""


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
def test_zarr_opens_it(prepared, tmp_path, codec):
    path = tmp_path / "a.zarr"
    write_volume(path, prepared, StoreSettings(codec=codec), "key")
    files = sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())
    assert files == ["c/0/0/0/0", "zarr.json"]
    array = zarr.open(path, mode="r")
    assert array.metadata.dimension_names == DIMENSIONS
    assert array.dtype == np.int16
    assert np.array_equal(array[...], prepared.data)
    attributes = read_attributes(path)
    assert attributes.meta == prepared.meta
    assert attributes.bytes == (path / "c/0/0/0/0").stat().st_size
    if codec != "none":
        assert attributes.bytes < prepared.data.nbytes


def test_equal_volumes_are_equal_bytes(prepared, tmp_path):
    for name in ("a.zarr", "b.zarr"):
        write_volume(tmp_path / name, prepared, StoreSettings(), "key")
    for file in ("zarr.json", "c/0/0/0/0"):
        one, other = (tmp_path / name / file for name in ("a.zarr", "b.zarr"))
        assert one.read_bytes() == other.read_bytes()


def test_complete_means_the_same_key_and_all_bytes(prepared, tmp_path):
    path = tmp_path / "a.zarr"
    assert not read_complete_attributes(path, "key")
    write_volume(path, prepared, StoreSettings(), "key")
    assert read_complete_attributes(path, "key")
    assert not read_complete_attributes(path, "another key")
    voxels = path / "c/0/0/0/0"
    voxels.write_bytes(voxels.read_bytes()[:-1])
    assert not read_complete_attributes(path, "key")
    write_volume(path, prepared, StoreSettings(), "another key")
    assert read_complete_attributes(path, "another key")


def test_what_a_killed_process_left_is_never_taken_for_a_volume(prepared, tmp_path):
    write_volume(tmp_path / "model.zarr", prepared, StoreSettings(), "key")
    np.save(tmp_path / "data.npy", prepared.data)
    command = [sys.executable, "-c", FOREVER, str(tmp_path)]
    for delay in (0.0, 0.004, 0.011, 0.02):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
        last = 1 + rest.count("\n")
        whole = [
            n for n in range(last + 2) if read_complete_attributes(tmp_path / "a.zarr", f"key {n}")
        ]
        assert len(whole) <= 1
        if whole:
            assert find_damage(tmp_path / "a.zarr") == ""
        else:
            assert not (tmp_path / "a.zarr").exists()


def test_a_failure_leaves_the_older_volume(prepared, tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    write_volume(path, prepared, StoreSettings(), "key")
    with pytest.raises(KeyError):
        write_volume(path, prepared, StoreSettings.model_construct(codec="unheard of"), "key 2")
    assert read_complete_attributes(path, "key")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
