"""Helpers of tests: inventories of small folders, and look-ups in them."""

import os

import numpy as np

from ssl_pipeline.volumes.config import Data
from ssl_pipeline.volumes.inventory import build_inventory
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from ssl_pipeline.volumes.quality_control import QualityThresholds
from ssl_pipeline.volumes.review import NO_DECISIONS, Decision, Decisions


def with_noise(brain, seed):
    """The brain as another scanner run would give it: the same anatomy, other noise."""
    return (brain.data + np.random.default_rng(seed).integers(0, 50, brain.data.shape)).astype("i2")


def as_hounsfield(brain, seed):
    """The same as a CT would say it: air at -1000, the rest up to some 100 HU."""
    return (with_noise(brain, seed) // 9 - 1000).astype("i2")


RULE = {"pattern": r"_(?P<id>\d+)", "expression": "(id + 1) // 2"}


NO_DUPLICATE_SEARCH = {"duplicate_threshold": None}  # where noise makes many people of one brain


def data_of(folder, splits=None, **more):
    root = {"path": str(folder / "raw"), "modality": "MR", "subject": RULE} | more
    return Data.model_validate({"roots": [root], "splits": NO_DUPLICATE_SEARCH | (splits or {})})


def build(data, folder, previous=None, thresholds=None, decisions=NO_DECISIONS, returned=()):
    return build_inventory(
        data,
        thresholds or QualityThresholds(),
        folder,
        pseudonyms_of(folder),
        previous,
        decisions=decisions,
        returned_labels=returned,
    )


def decide(scan, verdict, reason=""):
    """The decision of a reader on one scan as it is."""
    return Decisions({scan.id: Decision(verdict, reason, "reader2", scan.sha256)})


def pseudonyms_of(folder):
    return PseudonymStore(folder / "private", "study", folder / "out")


def by_name(folder, inventory):
    origins = pseudonyms_of(folder).origins
    return {os.path.basename(origins[scan.id].path): scan for scan in inventory.scans}


def subject_name(folder, scan):
    return pseudonyms_of(folder).origins[scan.id].subject_name


def of_people(people, **splits):
    rule = {"pattern": r"p_(?P<name>\w+)/"}
    return data_of(people.folder, {"duplicate_threshold": 1.4, **splits}, subject=rule)


def by_person(people, inventory):
    return {subject_name(people.folder, scan): scan for scan in inventory.scans}
