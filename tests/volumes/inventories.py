"""Inventories of small folders, and what tests ask of them."""

import os

import numpy as np

from ssl_pipeline.volumes.dataset import Data
from ssl_pipeline.volumes.inventory import take_inventory
from ssl_pipeline.volumes.origins import Origins
from ssl_pipeline.volumes.verdicts import Quality


def noisy(brain, seed):
    """The brain as another scanner run would give it: the same anatomy, other noise."""
    return (brain.data + np.random.default_rng(seed).integers(0, 50, brain.data.shape)).astype("i2")


def hounsfield(brain, seed):
    """The same as a CT would say it: air at -1000, the rest up to some 100 HU."""
    return (noisy(brain, seed) // 9 - 1000).astype("i2")


RULE = {"pattern": r"_(?P<id>\d+)", "expression": "(id + 1) // 2"}


ALL_ONE = {"copies_likeness": None}  # where noise makes many people of one brain


def study(folder, splits=None, **more):
    root = {"path": str(folder / "raw"), "modality": "MR", "subject": RULE} | more
    return Data.model_validate({"roots": [root], "splits": ALL_ONE | (splits or {})})


def take(data, folder, previous=None, quality=None):
    return take_inventory(data, quality or Quality(), folder, origins_of(folder), previous)


def origins_of(folder):
    return Origins(folder / "private", "study", folder / "out")


def by_name(folder, inventory):
    origins = origins_of(folder).all
    return {os.path.basename(origins[scan.id].path): scan for scan in inventory.scans}


def person(folder, scan):
    return origins_of(folder).all[scan.id].person
