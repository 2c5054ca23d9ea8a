"""A region: the window of one scan that carries one class label."""

from dataclasses import dataclass

from ssl_pipeline.views.config import Triple


@dataclass(frozen=True)
class Region:
    """Where a labelled crop begins; its size is that of its task's crops."""

    scan: str  # id in the catalog
    subject: str
    split: str
    start: Triple  # (z, y, x), voxels of the stored grid; may lie outside of the volume
    target: int  # index into the task's classes
