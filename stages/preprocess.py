"""Turn every accepted scan into a stored volume; what is stored and whole is skipped."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cluster.workers import dask_client
from ssl_pipeline.atomic import sweep, write_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.nearby import nearer
from ssl_pipeline.preprocess import size
from ssl_pipeline.preprocess.graph import Located
from ssl_pipeline.preprocess.graph import run as preprocess
from ssl_pipeline.progress import detail, progress
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.store.layout import files
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.shelf import Shelf
from ssl_pipeline.store.size import FILES
from ssl_pipeline.volumes.inventory import Inventory, Scan
from ssl_pipeline.volumes.origins import Origin
from stages.contract import Made, manifest_hash
from stages.need import RECORDS, Known, Need, Place, assumed
from stages.study import Study

READS = ("preprocess", "store")
AFTER = ("sample", "inventory")
VERSION = 1
MAKES = ("catalog.parquet", "failed.json", *(f"volumes/{name}" for name in files("*")))


def inputs(study: Study) -> dict[str, str]:
    """What the inventory found."""
    return {"inventory": manifest_hash(study, "inventory")}


def need(study: Study, known: Known, on: Place) -> Need:
    """Every scan becomes a volume; the largest one decides what a worker needs."""
    sizes = known.sizes.values()
    rate = f"{1e-6 / size.SECONDS_A_VOXEL:.0f} million voxels/s on a core"
    return Need(
        disk=known.stored_bytes,
        files=known.count(RECORDS + 2 + FILES * len(sizes), f"{FILES} a volume"),
        memory=assumed(
            max(map(size.worker_bytes, sizes)),
            f"{size.READ_BYTES} bytes a voxel of the largest scan",
        ),
        seconds=assumed(sum(map(size.seconds, sizes)), rate),
    )


def run(study: Study, out: Path) -> Made:
    """Preprocess what is missing, note what failed, and write the catalog of all that is there."""
    scans = Inventory.read(study.folder / "inventory" / "scans.parquet").accepted
    origins = study.origins.all
    shelf = Shelf(out / "volumes", study.preprocess, study.store)
    shelf.folder.mkdir(parents=True, exist_ok=True)
    sweep(shelf.folder)
    stored = {entry.id: entry for entry in Catalog.build(shelf, scans).entries}
    todo = [scan for scan in scans if scan.id not in stored]
    failed: dict[str, str] = {}
    done_by: Counter[str] = Counter()
    with (
        dask_client(study.dask, len(todo)) as (client, workers),
        progress("Preprocessing", len(todo)) as bar,
    ):
        located = (_located(scan, origins[scan.id]) for scan in todo)
        for result in preprocess(located, study.preprocess, shelf.put, client, workers):
            bar.advance(result.scan_id)
            worker = result.worker or "here"
            detail(f"{result.scan_id} on {worker}: {result.trace or result.error or 'stored'}")
            done_by[worker] += 1
            if result.error:
                failed[result.scan_id] = result.error
    sweep(shelf.folder)  # of workers that were killed meanwhile
    write_json(out / "failed.json", failed)
    stored |= {entry.id: entry for entry in Catalog.build(shelf, todo).entries}
    catalog = Catalog(tuple(stored[scan.id] for scan in scans if scan.id in stored))
    if not catalog.entries:
        raise UserError(f"No volume could be preprocessed: {sorted(failed.values())[0]}")
    catalog.write(out / "catalog.parquet")
    done = f"{len(catalog.entries)} volumes stored, {len(todo) - len(failed)} of them new"
    tail = f", {len(failed)} failed (see {out / 'failed.json'})" if failed else ""
    volumes = [path for entry in catalog.entries for path in shelf.files(entry.id)]
    made = [out / "catalog.parquet", out / "failed.json"]
    by_worker = {"scans_by_worker": dict(sorted(done_by.items()))}
    return Made(made, done + tail, by_worker, listed=volumes)


def _located(scan: Scan, origin: Origin) -> Located:
    masks = {kind: Path(origin.labels[mask["label"]]) for kind, mask in scan.masks.items()}
    return Located(scan, origin.source, masks)


def reader(study: Study, catalog: Catalog, entries: Iterable[Entry]) -> CropReader:
    """Reads these volumes, from this node's own disk where the cluster file has them copied."""
    names = [name for entry in entries for name in files(entry.id)]
    return CropReader(nearer(study.folder / "preprocess" / "volumes", names), catalog)


def orphans(study: Study) -> list[Path]:
    """Stored volumes of scans that neither the inventory nor the catalog knows any more."""
    out, scans = study.folder / "preprocess", study.folder / "inventory" / "scans.parquet"
    if not scans.exists() or not (out / "catalog.parquet").exists():
        return []
    accepted = {scan.id for scan in Inventory.read(scans).accepted}
    known = accepted | {entry.id for entry in Catalog.read(out / "catalog.parquet").entries}
    return [path for path in sorted(out.glob("volumes/*.zarr")) if path.stem not in known]
