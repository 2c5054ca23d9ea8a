"""Turn every accepted scan into a stored volume; what is stored and whole is skipped."""

from collections import Counter
from pathlib import Path

from cluster.workers import dask_client
from ssl_pipeline.atomic import sweep, write_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.graph import run as preprocess
from ssl_pipeline.progress import detail, progress
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.shelf import Shelf
from ssl_pipeline.volumes.inventory import Inventory
from stages.contract import Made, manifest_hash
from stages.study import Study

READS = ("preprocess", "store")
VERSION = 1


def inputs(study: Study) -> dict[str, str]:
    """What the inventory found."""
    return {"inventory": manifest_hash(study, "inventory")}


def run(study: Study, out: Path) -> Made:
    """Preprocess what is missing, note what failed, and write the catalog of all that is there."""
    scans = Inventory.read(study.folder / "inventory" / "scans.parquet").accepted
    shelf = Shelf(out / "volumes", study.preprocess, study.store)
    shelf.folder.mkdir(parents=True, exist_ok=True)
    sweep(shelf.folder)
    todo = [scan for scan in scans if not shelf.is_complete(scan)]
    failed: dict[str, str] = {}
    done_by: Counter[str] = Counter()
    with (
        dask_client(study.dask, len(todo)) as (client, workers),
        progress("Preprocessing", len(todo)) as bar,
    ):
        for result in preprocess(todo, study.preprocess, shelf.put, client, workers):
            bar.advance(result.scan_id)
            worker = result.worker or "here"
            detail(f"{result.scan_id} on {worker}: {result.trace or result.error or 'stored'}")
            done_by[worker] += 1
            if result.error:
                failed[result.scan_id] = result.error
    write_json(out / "failed.json", failed)
    catalog = Catalog.build(shelf, scans)
    if not catalog.entries:
        raise UserError(f"No volume could be preprocessed: {sorted(failed.values())[0]}")
    catalog.write(out / "catalog.parquet")
    done = f"{len(catalog.entries)} volumes stored, {len(todo) - len(failed)} of them new"
    tail = f", {len(failed)} failed (see {out / 'failed.json'})" if failed else ""
    made = [out / "catalog.parquet", out / "failed.json"]
    return Made(made, done + tail, {"scans_by_worker": dict(sorted(done_by.items()))})
