"""Random crops of 96 voxels a side out of stored volumes, one core: ours against what peers read.

All hold the same two channels of int16 of the same real volume, several times over, so that files
change from crop to crop. Warm page cache unless a row says otherwise.
"""

import os
from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import blosc2
import nibabel
import numpy as np
import tensorstore
import zarr
import zarrs  # noqa: F401 (registers its pipeline)
from zarr.codecs import BloscCodec

from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.volume_store import VolumeStore
from ssl_pipeline.volumes.inventory import Scan
from tests.bench.table import BenchmarkRow, median_seconds, time_row

SIDE = 96
VOLUMES = 6
CROPS = 24  # a round
ROUNDS = 9
CODECS = ("none", "lz4", "zstd")
NNUNET = {"codec": blosc2.Codec.ZSTD, "clevel": 8}  # nnU-Net 2.6: zstd 8, blocks and chunks below
NNUNET_BLOCK, NNUNET_CHUNK = (1, 32, 32, 16), (1, 160, 64, 64)

Array = np.ndarray[Any, Any]
Read = Callable[[int, tuple[int, int, int]], Array]


def rows(prepared: PreparedVolume, folder: Path) -> Iterator[BenchmarkRow]:
    """The comparisons that the store's goals are about."""
    readers = {**_ours(prepared, folder), **_peers(prepared.data, folder)}
    _agree(readers, prepared.data)
    places = _places(prepared.data.shape[1:])
    works = {name: _round(read, places) for name, read in readers.items()}
    works |= _datasets(prepared.data, folder)
    taken = {name: t / CROPS for name, t in median_seconds(works, ROUNDS).items()}
    for ours, peer, goal in (
        ("ours none", "memory map", 0.9),
        ("ours lz4", "blosc2, nnU-Net's settings", 1.8),
        ("ours zstd", "blosc2, nnU-Net's settings", 0.9),
        ("ours lz4", "zarr-python, same file", None),
        ("ours lz4", "zarr-python, its best: 96, lz4", 3.5),
        ("ours lz4", "zarrs, same file", None),
        ("ours lz4", "tensorstore, same file", None),
        ("ours zstd", "tensorstore, same file, zstd", None),
        ("ours lz4", "nibabel, .nii as it is", None),
        ("ours lz4", "MONAI, PersistentDataset", None),
        ("ours lz4", "MONAI, CacheDataset in memory", None),
        ("ours lz4", "TorchIO, Queue of 4 crops a volume", None),
    ):
        rate, other = 1 / taken[ours], 1 / taken[peer]
        measure = f"crops of {SIDE}^3 a second, {ours.split()[1]}"
        yield BenchmarkRow(measure, f"{rate:.0f}", f"{peer}: {other:.0f}", rate / other, goal)
    yield from _cold(folder, readers, prepared.data.shape[1:])


def _ours(prepared: PreparedVolume, folder: Path) -> dict[str, Read]:
    """Our reader over each codec, as pretraining uses it."""
    found: dict[str, Read] = {}
    for codec in CODECS:
        shelf = VolumeStore(folder / f"ours-{codec}", Preprocess(), StoreSettings(codec=codec))
        scans = [make_scan(str(number)) for number in range(VOLUMES)]
        for each in scans:
            shelf.put(each, prepared)
        reader = CropReader(shelf.folder, Catalog.build(shelf, scans))
        found[f"ours {codec}"] = _of_reader(reader)
    return found


def _of_reader(reader: CropReader) -> Read:
    return lambda number, start: reader.read_crop(str(number), start, (SIDE, SIDE, SIDE))


def make_scan(name: str) -> Scan:
    """A scan for a volume that is stored under this name."""
    return Scan(
        id=name, root="bench", modality="CT", targets={}, labels={},
        quality="accepted", format="NIfTI",
    )  # fmt: skip


def _peers(data: Array, folder: Path) -> dict[str, Read]:
    """What others read the same voxels from."""
    ours = {
        codec: [folder / f"ours-{codec}" / f"{n}.zarr" for n in range(VOLUMES)] for codec in CODECS
    }
    maps, blosc, best = [], [], []
    for number in range(VOLUMES):
        np.save(folder / f"{number}.npy", data)
        maps.append(np.load(folder / f"{number}.npy", mmap_mode="r"))
        path = folder / f"{number}.b2nd"
        blosc2.asarray(
            data,
            urlpath=str(path),
            mode="w",
            cparams=NNUNET,
            chunks=NNUNET_CHUNK,
            blocks=NNUNET_BLOCK,
        )
        blosc.append(blosc2.open(str(path), mode="r", mmap_mode="r"))
        best.append(_zarr_pythons_best(data, folder / f"best-{number}.zarr"))
    stores = {codec: [_tensorstore(path) for path in paths] for codec, paths in ours.items()}
    return {
        "memory map": lambda n, at: np.array(maps[n][_box(at)]),
        "blosc2, nnU-Net's settings": lambda n, at: blosc[n][_box(at)],
        "zarr-python, its best: 96, lz4": lambda n, at: best[n][_box(at)],
        "zarr-python, same file": _zarr(
            ours["lz4"], "zarr.core.codec_pipeline.BatchedCodecPipeline"
        ),
        "zarrs, same file": _zarr(ours["lz4"], "zarrs.ZarrsCodecPipeline"),
        "tensorstore, same file": lambda n, at: stores["lz4"][n][_box(at)].read().result(),
        "tensorstore, same file, zstd": lambda n, at: stores["zstd"][n][_box(at)].read().result(),
    }


def _datasets(data: Array, folder: Path) -> dict[str, Callable[[], object]]:
    """A round of crops from what trainers are fed by elsewhere; these draw places of their own."""
    from monai.data import CacheDataset, PersistentDataset
    from monai.transforms import Compose, LoadImage, RandSpatialCrop

    volumes = [folder / f"{number}.npy" for number in range(VOLUMES)]
    load = LoadImage(reader="NumpyReader", image_only=True)
    crop = Compose([load, RandSpatialCrop((SIDE,) * 3, random_size=False)])
    persistent = PersistentDataset(volumes, crop, cache_dir=folder / "monai")
    cached = CacheDataset(volumes, crop, progress=False)
    plain = _round(_nibabel(data, folder), _places(data.shape[1:]))
    queue = _queue(folder)
    return {
        "nibabel, .nii as it is": plain,
        "MONAI, PersistentDataset": lambda: [persistent[k % VOLUMES] for k in range(CROPS)],
        "MONAI, CacheDataset in memory": lambda: [cached[k % VOLUMES] for k in range(CROPS)],
        "TorchIO, Queue of 4 crops a volume": lambda: list(islice(queue, CROPS)),
    }


def _nibabel(data: Array, folder: Path) -> Read:
    paths = [folder / f"{number}.nii" for number in range(VOLUMES)]
    for path in paths:
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(data, 0, -1), np.eye(4)), path)
    images = [nibabel.load(path) for path in paths]
    return lambda n, at: np.asarray(images[n].dataobj[(*_box(at)[1:], slice(None))])


def _queue(folder: Path) -> "Iterator[Any]":
    import torchio

    subjects = [
        torchio.Subject(image=torchio.ScalarImage(folder / f"{number}.nii"))
        for number in range(VOLUMES)
    ]
    queue = torchio.Queue(
        torchio.SubjectsDataset(subjects),
        max_length=CROPS,
        samples_per_volume=CROPS // VOLUMES,
        sampler=torchio.data.UniformSampler(SIDE),
        num_workers=0,
    )
    return chain.from_iterable(torchio.SubjectsLoader(queue, batch_size=1) for _ in count())


def _zarr(paths: list[Path], pipeline: str) -> Read:
    with zarr.config.set({"codec_pipeline.path": pipeline, "async.concurrency": 1}):
        arrays = [zarr.open_array(path, mode="r") for path in paths]
    return lambda n, at: arrays[n][_box(at)]


def _zarr_pythons_best(data: Array, path: Path) -> "zarr.Array":
    """Chunks of 96 voxels a side: the fewest for each of which zarr-python pays its overhead."""
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=2)
    array = zarr.create_array(
        path,
        shape=data.shape,
        dtype=data.dtype,
        chunks=(1, SIDE, SIDE, SIDE),
        compressors=codec,
        overwrite=True,
    )
    array[...] = data
    return array


def _tensorstore(path: Path) -> "tensorstore.TensorStore":
    context = {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}, "context": context}
    return tensorstore.open(spec, read=True).result()


def _box(at: tuple[int, int, int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(a, a + SIDE) for a in at))


def _places(shape: tuple[int, ...]) -> list[tuple[int, tuple[int, int, int]]]:
    """Volumes and corners of the crops of a round, the same for all."""
    random = np.random.default_rng(0)
    corners = random.integers(0, [n - SIDE + 1 for n in shape], (CROPS, 3)).tolist()
    return [(k % VOLUMES, (z, y, x)) for k, (z, y, x) in enumerate(corners)]


def _round(read: Read, places: list[tuple[int, tuple[int, int, int]]]) -> Callable[[], None]:
    def work() -> None:
        for number, at in places:
            read(number, at)

    return work


def _agree(readers: dict[str, Read], data: Array) -> None:
    """A benchmark of readers that give other voxels would be worth nothing."""
    at = (17, 29, 40)
    for name, read in readers.items():
        assert np.array_equal(read(1, at), data[_box(at)]), name


def _cold(folder: Path, readers: dict[str, Read], shape: tuple[int, ...]) -> Iterator[BenchmarkRow]:
    """One crop of each volume after its files have left the page cache."""
    pairs = (("ours lz4", "blosc2, nnU-Net's settings"), ("ours none", "memory map"))
    firsts = _places(shape)[:VOLUMES]
    for ours, peer in pairs:
        works = {name: _round(readers[name], firsts) for name in (ours, peer)}
        taken = median_seconds(works, 5, before=lambda: _forget(folder))
        yield time_row(
            f"crop of {SIDE}^3, page cache dropped, {ours.split()[1]}",
            taken[ours] / VOLUMES,
            taken[peer] / VOLUMES,
            peer,
        )


def _forget(folder: Path) -> None:
    """Have the kernel drop what it keeps of the files."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
