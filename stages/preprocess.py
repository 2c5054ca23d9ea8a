"""Preprocess every accepted scan into a stored volume; volumes that are complete are skipped."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from cluster.workers import dask_client
from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import remove_temporaries, write_json
from ssl_pipeline.io.node_cache import cached_folder
from ssl_pipeline.preprocess import cost
from ssl_pipeline.preprocess.parallel import ScanWithMasks
from ssl_pipeline.preprocess.parallel import preprocess_scans as preprocess
from ssl_pipeline.progress import debug, info, progress
from ssl_pipeline.store.catalog import CATALOG_FILE, FAILURES_FILE, Catalog, Entry
from ssl_pipeline.store.cost import FILES_PER_VOLUME
from ssl_pipeline.store.layout import volume_files
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.volume_store import VolumeStore
from ssl_pipeline.volumes.inventory import Inventory, Scan
from ssl_pipeline.volumes.pseudonyms import Origin
from stages.core import layout
from stages.core.records import manifest_hash
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    ResourceEstimate,
    assumed,
)
from stages.core.stage import StageResult
from stages.core.study import Study
from stages.evaluation_check import check_evaluations

TITLE = "Preprocess every accepted scan into a stored volume"
CONFIG_KEYS = ("preprocess", "store")
DEPENDS_ON = ("download", "inventory", "reviewed")
VERSION = 6
OUTPUTS = (
    CATALOG_FILE,
    FAILURES_FILE,
    *(f"{layout.VOLUMES_FOLDER}/{name}" for name in volume_files("*")),
)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = False, True, False
SHARDED, PER_TRIAL = False, False


def is_needed(study: Study) -> bool:
    """Always."""
    return True


def inputs(study: Study) -> dict[str, str]:
    """The inventory, and the review where the study asks for one."""
    reviewed = {"reviewed": manifest_hash(study, "reviewed")} if study.review else {}
    return {"inventory": manifest_hash(study, "inventory")} | reviewed


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """Every scan becomes a volume; the largest one decides the memory of a worker."""
    sizes = dataset.sizes.values()
    rate = f"{1e-6 / cost.SECONDS_PER_VOXEL:.0f} million voxels/s on a core"
    return ResourceEstimate(
        disk=dataset.stored_bytes,
        files=dataset.quantity_from_scans(
            RECORD_FILE_COUNT + 2 + FILES_PER_VOLUME * len(sizes), f"{FILES_PER_VOLUME} a volume"
        ),
        memory=assumed(
            max(map(cost.worker_bytes, sizes)),
            f"{cost.READ_VOXEL_BYTES} bytes a voxel of the largest scan",
        ),
        seconds=assumed(sum(map(cost.preprocess_seconds, sizes)), rate),
    )


def run(study: Study, out: Path) -> StageResult:
    """Preprocess missing volumes, record failures, and write the catalog of all volumes."""
    check_evaluations(study)  # which the study may have changed since the inventory was built
    scans = Inventory.read(layout.inventory_table(study)).accepted_scans
    origins = study.pseudonyms.origins
    store = VolumeStore(out / layout.VOLUMES_FOLDER, study.preprocess, study.store)
    store.folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(store.folder)
    stored = {entry.id: entry for entry in Catalog.build(store, scans).entries}
    todo = [scan for scan in scans if scan.id not in stored]
    failed: dict[str, str] = {}
    done_by: Counter[str] = Counter()
    voxels = {scan.id: math.prod(scan.shape) for scan in todo}
    with (
        dask_client(study.dask, len(todo), store.folder) as (client, workers),
        progress("Preprocessing", len(todo), sum(voxels.values())) as bar,
    ):
        located = (_with_masks(scan, origins[scan.id]) for scan in todo)
        for result in preprocess(located, study.preprocess, store.put, client, workers):
            bar.advance(result.scan_id, work=voxels[result.scan_id])
            worker = result.worker or "here"
            debug(f"{result.scan_id} on {worker}: {result.traceback or result.error or 'stored'}")
            done_by[worker] += 1
            if result.error:
                failed[result.scan_id] = result.error
    remove_temporaries(store.folder)  # of workers that were killed meanwhile
    write_json(out / FAILURES_FILE, failed)
    stored |= {entry.id: entry for entry in Catalog.build(store, todo).entries}
    catalog = Catalog(tuple(stored[scan.id] for scan in scans if scan.id in stored))
    if not catalog.entries:
        raise UserError(f"No volume could be preprocessed: {sorted(failed.values())[0]}")
    catalog.write(out / CATALOG_FILE)
    done = f"{len(catalog.entries)} volumes stored, {len(todo) - len(failed)} of them new"
    tail = f", {len(failed)} failed (see {out / FAILURES_FILE})" if failed else ""
    for note in _cut_label_notes(catalog):
        info(f"preprocess: {note}")
    volumes = [path for entry in catalog.entries for path in store.volume_files(entry.id)]
    made = [out / CATALOG_FILE, out / FAILURES_FILE]
    by_worker = {"scans_by_worker": dict(sorted(done_by.items()))}
    return StageResult(made, done + tail, by_worker, indexed_files=volumes)


def _cut_label_notes(catalog: Catalog) -> Iterator[str]:
    """For each label that the crop cuts somewhere, in how many volumes, and where most of it."""
    shares: dict[str, dict[str, float]] = {}
    for entry in catalog.entries:
        for name, share in entry.meta.cut_labels.items():
            shares.setdefault(name, {})[entry.id] = share
    for name, by_volume in sorted(shares.items()):
        worst = max(by_volume, key=lambda volume: by_volume[volume])
        yield (
            f"the label {name} of {format_count(len(by_volume), 'volume')} reaches out of the crop"
            f" to the foreground, with up to {by_volume[worst]:.1%} of its voxels ({worst});"
            " correct the foreground, or set preprocess.foreground to all."
        )


def _with_masks(scan: Scan, origin: Origin) -> ScanWithMasks:
    masks = {kind: Path(origin.labels[mask["label"]]) for kind, mask in scan.masks.items()}
    fitting = (name for name, fits in scan.labels.items() if fits and origin.labels.get(name))
    labels = {name: Path(origin.labels[name]) for name in fitting}
    return ScanWithMasks(scan, origin.source, masks, labels)


def crop_reader(study: Study, catalog: Catalog, entries: Iterable[Entry]) -> CropReader:
    """A reader of these volumes, from this node's own disk where `scratch_dir` is set."""
    names = [name for entry in entries for name in volume_files(entry.id)]
    return CropReader(cached_folder(layout.volumes_folder(study), names), catalog)


def orphaned_volumes(study: Study) -> list[Path]:
    """Stored volumes of scans that are in neither the inventory nor the catalog any more."""
    scans, catalog = layout.inventory_table(study), layout.catalog_table(study)
    if not scans.exists() or not catalog.exists():
        return []
    accepted = {scan.id for scan in Inventory.read(scans).accepted_scans}
    known = accepted | {entry.id for entry in Catalog.read(catalog).entries}
    stored = sorted(layout.volumes_folder(study).glob("*.zarr"))
    return [path for path in stored if path.stem not in known]
