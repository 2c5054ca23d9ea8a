"""The crop reader gives what zarr-python gives, in workers too; no damage ends a process."""

import multiprocessing
import os
import pickle

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.prepare import VALID
from ssl_pipeline.store import reader as reader_module
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.shard import INTENSITY_CHANNEL, MASK_CHANNEL
from ssl_pipeline.store.volume_store import VolumeStore

CODECS = ("lz4", "zstd", "none")
Offset = st.floats(-0.6, 1.3)
Extent = st.integers(1, 70)


@pytest.fixture(scope="module")
def readers(prepared, tmp_path_factory):
    """A reader for each codec, and the same volume through zarr-python."""
    from ssl_pipeline.preprocess.config import Preprocess
    from ssl_pipeline.volumes.inventory import Scan

    scan = Scan(
        id="a",
        root="packaged",
        modality="MR",
        targets={},
        labels={},
        quality="accepted",
        format="NIfTI",
    )
    made = {}
    for codec in CODECS:
        store = VolumeStore(
            tmp_path_factory.mktemp(codec), Preprocess(), StoreSettings(codec=codec)
        )
        store.put(scan, prepared)
        made[codec] = (
            CropReader(store.folder, Catalog.build(store, [scan])),
            zarr.open(store.volume_path("a"), mode="r"),
        )
    return made


def by_zarr(array, start, size):
    out = np.zeros((2, *size), np.int16)
    low = [max(0, s) for s in start]
    high = [min(n, s + e) for n, s, e in zip(array.shape[1:], start, size, strict=True)]
    if all(a < b for a, b in zip(low, high, strict=True)):
        to = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
        of = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        out[(slice(None), *to)] = array[(slice(None), *of)]
    return out


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60, deadline=None)
@given(where=st.tuples(Offset, Offset, Offset), size=st.tuples(Extent, Extent, Extent))
def test_equal_to_zarr_python(readers, codec, where, size):
    reader, array = readers[codec]
    start = tuple(int(w * n) for w, n in zip(where, array.shape[1:], strict=True))
    block = reader.read_crop("a", start, size)
    assert block.dtype == np.int16
    assert np.array_equal(block, by_zarr(array, start, size))
    for one in (INTENSITY_CHANNEL, MASK_CHANNEL):
        assert np.array_equal(reader.read_crop("a", start, size, one), block[one])


@pytest.mark.parametrize("codec", CODECS)
def test_whole_volumes(readers, prepared, codec):
    assert np.array_equal(readers[codec][0].read_volume("a"), prepared.data)


def test_the_sample_has_chunks_that_are_not_stored(readers, prepared):
    reader, _ = readers["lz4"]
    reader.read_volume("a")
    assert any(begin == end for begin, end in reader._shards["a"]._places)
    assert not (prepared.data[1] & VALID).all()


def _in_worker(reader, start, size, queue):
    queue.put((os.getpid(), reader.read_crop("a", start, size).tobytes()))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_goes_to_workers(readers, method):
    reader, _ = readers["zstd"]
    expected = reader.read_crop("a", (3, 4, 5), (40, 30, 20)).tobytes()  # open before the fork
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [
        context.Process(target=_in_worker, args=(reader, (3, 4, 5), (40, 30, 20), queue))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert {content for _, content in results} == {expected}
    assert os.getpid() not in {process for process, _ in results}


def test_a_pickled_reader_has_nothing_open(readers):
    reader, _ = readers["lz4"]
    reader.read_volume("a")
    again = pickle.loads(pickle.dumps(reader))
    assert not again.open_volumes
    assert np.array_equal(again.read_volume("a"), reader.read_volume("a"))


def test_only_so_many_maps_stay_open(volume_store, make_scan, prepared, monkeypatch):
    monkeypatch.setattr(reader_module, "MAX_OPEN_MAPS", 3)
    scans = [make_scan(name) for name in "abcde"]
    for scan in scans:
        volume_store.put(scan, prepared)
    reader = CropReader(volume_store.folder, Catalog.build(volume_store, scans))
    files = len(os.listdir("/proc/self/fd"))
    for name in "abcdeabcde":
        reader.read_crop(name, (0, 0, 0), (8, 8, 8))
    reader.read_crop("c", (0, 0, 0), (8, 8, 8))
    assert reader.open_volumes == ["d", "e", "c"]
    assert len(os.listdir("/proc/self/fd")) <= files + 3


def test_what_cannot_be_read_is_one_sentence(volume_store, make_scan, prepared):
    scans = [make_scan(name) for name in "abc"]
    for scan in scans:
        volume_store.put(scan, prepared)
    catalog = Catalog.build(volume_store, scans)
    voxels = volume_store.volume_path("a") / "c/0/0/0/0"
    content = bytearray(voxels.read_bytes())
    content[-20] ^= 1  # the index
    voxels.write_bytes(content)
    (volume_store.volume_path("b") / "c/0/0/0/0").write_bytes(b"")
    (volume_store.volume_path("c") / "zarr.json").unlink()
    for name in "abc":
        with pytest.raises(UserError, match="damaged"):
            CropReader(volume_store.folder, catalog).read_volume(name)
    with pytest.raises(UserError, match="not among the 3"):
        CropReader(volume_store.folder, catalog).read_volume("d")


def test_damaged_chunk_headers_are_refused(volume_store, make_scan, prepared):
    scan = make_scan("a")
    volume_store.put(scan, prepared)
    catalog = Catalog.build(volume_store, [scan])
    voxels = volume_store.volume_path("a") / "c/0/0/0/0"
    whole = voxels.read_bytes()
    reader = CropReader(volume_store.folder, catalog)
    reader.read_volume("a")
    begin = next(b for b, e in reader._shards["a"]._places if 0 < e - b < 60000)  # compressed
    for place in (4, 12, 18, 19):  # bytes, compressed bytes, where the first block begins
        content = bytearray(whole)
        content[begin + place] ^= 0x41
        voxels.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            CropReader(volume_store.folder, catalog).read_volume("a")


def test_a_volume_that_the_catalog_does_not_describe_is_refused(volume_store, make_scan, prepared):
    from dataclasses import replace

    scan = make_scan("a")
    volume_store.put(scan, prepared)
    catalog = Catalog.build(volume_store, [scan])
    volume_store.put(scan, replace(prepared, data=np.ascontiguousarray(prepared.data[:, 1:])))
    with pytest.raises(UserError, match="the catalog says"):
        CropReader(volume_store.folder, catalog).read_volume("a")
