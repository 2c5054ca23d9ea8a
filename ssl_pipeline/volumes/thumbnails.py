"""Thumbnails: three planes of a scan, small enough that thousands fit on one page.

Made while the scan is open anyway, and kept in one file beside the inventory, by the scan's id.
Axial, coronal and sagittal middle planes lie side by side in one grey JPEG, in squares of
SIDE_PIXELS pixels, front or top up and the patient's right on the left.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from ssl_pipeline.io import atomic
from ssl_pipeline.io.parquet import read_table
from ssl_pipeline.volumes.geometry import spacing_mm
from ssl_pipeline.volumes.volume import Volume

THUMBNAILS_FILE = "thumbnails.parquet"
SIDE_PIXELS = 64
JPEG_QUALITY = 60  # of the JPEG: 2 to 3 KB a scan
SCHEMA = pa.schema({"id": pa.string(), "jpeg": pa.binary()})


def thumbnail(volume: Volume, missing_value: float | None) -> bytes:
    """A JPEG of 3 SIDE_PIXELS x SIDE_PIXELS of a volume whose axes are in canonical order."""
    planes = [_plane(volume.data, axis, missing_value) for axis in (2, 1, 0)]
    values = np.concatenate([plane[np.isfinite(plane)] for plane in planes])
    low, high = np.percentile(values, (0.5, 99.5)) if values.size else (0.0, 1.0)
    x, y, z = spacing_mm(volume.affine)
    extent = max(side * mm for side, mm in zip(volume.data.shape, (x, y, z), strict=True))
    whole = Image.new("L", (3 * SIDE_PIXELS, SIDE_PIXELS))
    for number, (plane, mm) in enumerate(zip(planes, ((y, x), (z, x), (z, y)), strict=True)):
        share = np.nan_to_num((plane - low) / max(high - low, 1e-6), posinf=1.0, neginf=0.0)
        grey = Image.fromarray((np.clip(share, 0, 1) * 255).astype(np.uint8))
        height, width = (
            max(1, round(SIDE_PIXELS * side * each / extent))
            for side, each in zip(plane.shape, mm, strict=True)
        )
        small = grey.resize((width, height), Image.Resampling.BOX)
        whole.paste(
            small, (number * SIDE_PIXELS + (SIDE_PIXELS - width) // 2, (SIDE_PIXELS - height) // 2)
        )
    buffer = io.BytesIO()
    whole.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def write(path: Path, thumbnails: Mapping[str, bytes]) -> None:
    """Write thumbnails by the id of their scan."""
    rows = [{"id": name, "jpeg": jpeg} for name, jpeg in sorted(thumbnails.items())]
    with atomic.atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)


def read(path: Path) -> dict[str, bytes]:
    """Read thumbnails; empty where there is no such file."""
    if not path.exists():
        return {}
    remedy = "remove it, and run the stage inventory again"
    table = read_table(path, remedy, SCHEMA.names).to_pydict()
    return dict(zip(table["id"], table["jpeg"], strict=True))


def _plane(data: NDArray[Any], axis: int, missing_value: float | None) -> NDArray[np.float32]:
    """The middle plane across an axis (x, y, z), as (down, across), turned for display."""
    plane: NDArray[np.float32] = np.take(data, data.shape[axis] // 2, axis=axis).astype(np.float32)
    if missing_value is not None:
        plane[plane == missing_value] = np.nan
    return plane.T[::-1, ::-1]
