"""Files of features that other encoders made of the study's scans (`evaluate.features`)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_pipeline.evaluation.data.scan_features import (
    ScanFeatures,
    ScanNames,
    read_scan_features,
)
from ssl_pipeline.evaluation.runner.subject_splits import split_subjects
from ssl_pipeline.formatting import escape_bytes
from ssl_pipeline.store.catalog import ScanRow
from ssl_pipeline.volumes.config import resolve_path
from ssl_pipeline.volumes.inventory import Inventory
from stages.core import layout
from stages.core.study import Study


def task_features(study: Study, task: str, scans: Sequence[ScanRow]) -> dict[str, ScanFeatures]:
    """The features of the scans that a task's probes learn from and score, by name.

    Raises UserError for a file that `read_scan_features` refuses, or that lacks one of the scans.
    """
    files = study.features_of(task)
    if not files:
        return {}
    names, config = list(_scan_names(study)), study.tasks[task]
    used = split_subjects(config, scans, study.evaluate.split).entries
    found = {}
    for name, path in files.items():
        features = read_scan_features(f"evaluate.features.{name}", path, names)
        features.check([each.id for each in used], f"task {config.title!r}")
        found[name] = features
    return found


def _scan_names(study: Study) -> Iterator[ScanNames]:
    """What users may call the scans of the study by."""
    roots = {root.title: resolve_path(root.path) for root in study.data.roots}
    origins = study.pseudonyms.origins
    for scan in Inventory.read(layout.inventory_table(study)).accepted_scans:
        origin = origins[scan.id]
        path, root = Path(origin.path), roots.get(scan.root)
        paths = [path, path.absolute()]
        if root and path.is_relative_to(root):
            paths.append(path.relative_to(root))
        yield ScanNames(
            scan.id, scan.root, origin.series, tuple(escape_bytes(str(each)) for each in paths)
        )
