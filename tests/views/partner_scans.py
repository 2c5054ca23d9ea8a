"""Two sequences of a planted visit, on two grids, and the sampler of such scans."""

import numpy as np

from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import prepare_volume
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.volume_store import VolumeStore
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import Sampler
from ssl_pipeline.volumes.inventory import Scan
from ssl_pipeline.volumes.readers import Source, read_volume
from ssl_pipeline.volumes.volume import Volume
from tests.volumes.volume_writers import ANATOMICAL

PATCH = (4, 4, 4)
VIEWS = Views(crop_voxels=(12, 12, 12), partner="visit", min_valid=0.25)
FRAME = {"visit": "v", "frame": "f"}  # of a scan
SETTINGS = Preprocess(foreground="all")


def sequences():
    """A real head, and the same with another grey curve on another grid."""
    head = read_volume(Source(ANATOMICAL))
    grey = head.data.astype(np.float32)
    curve = (grey.max() * np.sin(grey / grey.max() * 2.5))[3:, 2:, ::2]
    affine = head.affine @ np.diag([1.0, 1, 2, 1])
    affine[:3, 3] += head.affine[:3, :3] @ [3, 2, 0]
    return head, Volume(curve, affine)


def partner_sampler(folder, *scans, views=VIEWS, batch_size=4):
    """A sampler of scans, each a volume with the fields of its row that matter here."""
    store = VolumeStore(folder / "volumes", SETTINGS, StoreSettings())
    rows = [
        Scan(
            **{"id": str(number), "subject": "s"} | fields,
            root="r", modality="MR", split="train", targets={}, labels={},
            quality="accepted", format="NIfTI", sha256=str(number),
        )
        for number, (_, fields) in enumerate(scans)
    ]  # fmt: skip
    for row, (volume, _) in zip(rows, scans, strict=True):
        store.put(row, prepare_volume(volume, "MR", SETTINGS))
    catalog = Catalog.build(store, rows)
    reader = CropReader(store.folder, catalog)
    return Sampler(catalog.entries, reader, views, PATCH, batch_size=batch_size, seed=1)
