"""From a raw file to a volume on disk that training can use: ours against what labs write.

One thread each, the same CT, the same grid, cubic splines, nothing cropped, so that results can be
compared: ours must equal scipy's to the rounding of HU.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from scipy import ndimage
from threadpoolctl import threadpool_limits

from ssl_pipeline.preprocess.config import Ct, Preprocess
from ssl_pipeline.preprocess.prepare import PreparedVolume, prepare_volume
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.store.writer import write_volume
from ssl_pipeline.volumes.readers import Source, read_volume
from tests.bench.table import BenchmarkRow, median_seconds, time_row

SPACING_MM = (1.25, 1.25, 1.25)
CLIP = (-1024, 3071)
PREPROCESS = Preprocess(ct=Ct(spacing_mm=SPACING_MM, clip_hu=CLIP), foreground="all")
TOLERANCE_HU = 1.0  # ours is rounded to HU
ROUNDS = 3
PEAK = """
import sys
from pathlib import Path
from tests.bench import preprocess_baselines

def kib(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])

Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kib("VmRSS")
preprocess_baselines.{chain}(Path(sys.argv[1]))
print(kib("VmHWM") - before)
"""


def ours(path: Path) -> PreparedVolume:
    """Our chain, up to the store."""
    return prepare_volume(read_volume(Source(path)), "CT", PREPROCESS)


def rows(path: Path, folder: Path) -> Iterator[BenchmarkRow]:
    """The comparisons of a whole chain, and their memory."""
    chains: dict[str, Callable[[], Any]] = {
        "ours": lambda: write_volume(folder / "ours.zarr", ours(path), StoreSettings(), "bench"),
        "nibabel, scipy order 3, np.save": lambda: np.save(folder / "scipy.npy", _scipy(path)),
        "MONAI, Spacing order 3, np.save": lambda: np.save(folder / "monai.npy", _monai(path)),
        "TorchIO, bspline, np.save": lambda: np.save(folder / "torchio.npy", _torchio(path)),
    }
    with threadpool_limits(1):
        torch.set_num_threads(1)
        worst = _difference(path)
        taken = median_seconds(chains, ROUNDS)
    for peer, goal in zip(list(chains)[1:], (10.0, None, None), strict=True):
        yield time_row("a volume, raw to stored", taken["ours"], taken[peer], peer, goal)
    yield BenchmarkRow(
        "largest difference from scipy's result",
        f"{worst:.2f} HU",
        f"stated tolerance: {TOLERANCE_HU} HU",
    )
    mine, theirs = (_peak_mib(name, path) for name in ("ours", "_scipy"))
    yield BenchmarkRow(
        "peak memory of that chain",
        f"{mine:.0f} MiB",
        f"nibabel, scipy order 3: {theirs:.0f} MiB",
        theirs / mine,
    )


def _scipy(path: Path) -> np.ndarray[Any, Any]:
    """What a lab writes first."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    data = np.clip(image.get_fdata(), *CLIP)
    factors = [
        round(n * s / t) / n
        for n, s, t in zip(data.shape, image.header.get_zooms(), SPACING_MM, strict=True)
    ]
    data = ndimage.zoom(data, factors, order=3, mode="nearest", grid_mode=True)
    return np.clip(data, *CLIP).astype(np.float32)


def _monai(path: Path) -> np.ndarray[Any, Any]:
    from monai.transforms import (
        Compose,
        EnsureChannelFirst,
        LoadImage,
        Orientation,
        ScaleIntensityRange,
        Spacing,
    )

    chain = Compose(
        [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            Orientation(axcodes="RAS", labels=None),
            Spacing(pixdim=SPACING_MM, mode=3, padding_mode="nearest"),
            ScaleIntensityRange(*CLIP, *CLIP, clip=True),
        ]
    )
    return np.asarray(chain(str(path)), np.float32)


def _torchio(path: Path) -> np.ndarray[Any, Any]:
    import torchio

    chain = torchio.Compose(
        [
            torchio.ToCanonical(),
            torchio.Resample(SPACING_MM, image_interpolation="bspline"),
            torchio.Clamp(*CLIP),
        ]
    )
    return chain(torchio.ScalarImage(path)).numpy()


def _difference(path: Path) -> float:
    """Largest difference between our stored values and scipy's, in HU."""
    theirs = _scipy(path).transpose(2, 1, 0)
    worst = float(np.abs(ours(path).data[0] - theirs).max())
    assert worst <= TOLERANCE_HU, f"the chains disagree by {worst} HU"
    return worst


def _peak_mib(chain: str, path: Path) -> float:
    """Peak resident memory of a chain in a process of its own, beyond what its imports hold."""
    command = [sys.executable, "-c", PEAK.format(chain=chain), str(path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(said) / 1024
