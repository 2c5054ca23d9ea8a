"""`make bench-scale`: what starts and restarts cost when very many volumes are catalogued.

The catalogue is simulated: a small study is prepared, and one of its volumes then stands there
under as many names. What is timed is the pipeline's own code.
"""

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ssl_pipeline.io.atomic import sha256_file, write_json
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.views.sampler import Sampler
from ssl_pipeline.volumes.inventory import Inventory
from stages.core.layout import COMPLETION_RECORD
from stages.core.manifests import refresh_manifests
from stages.core.runner import run_stage
from stages.core.study import Study
from stages.core.study_file import load_study
from tests.bench.table import BenchmarkRow, write_table
from tests.conftest import read_json, write_study

COUNTS = (100, 10_000, 100_000)
WORK = Path("build/bench/scale").resolve()


def main() -> None:
    """Measure each number of volumes in a process of its own, so that memory is its own too."""
    if len(sys.argv) > 1:
        for name, seconds in _measured(int(sys.argv[1])):
            print(f"{name}\t{seconds}")
        return
    found: dict[str, list[float]] = {}
    for count in COUNTS:
        shutil.rmtree(WORK, ignore_errors=True)
        command = [sys.executable, "-m", "tests.bench.scale", str(count)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for name, figure in (line.split("\t") for line in said.splitlines() if "\t" in line):
            found.setdefault(name, []).append(float(figure))
    shutil.rmtree(WORK)
    numbers = " / ".join(f"{count:,}" for count in COUNTS)
    rows = [
        BenchmarkRow(name, " / ".join(f"{figure:.3g}" for figure in figures), f"{numbers} volumes")
        for name, figures in found.items()
    ]
    write_table(rows, Path("build/bench/scale.json"))


def _measured(count: int) -> Iterator[tuple[str, float]]:
    WORK.mkdir(parents=True)
    study = load_study(write_study(WORK))
    for name in ("inventory", "preprocess"):
        run_stage(name, study, {})
    _multiply(study, count)
    run_stage("preprocess", study, {})
    _multiply(study, count, split="")  # as when the subjects of scans change
    catalog = study.folder / "preprocess" / "catalog.parquet"
    yield "read the inventory, s", _seconds(lambda: _inventory(study))
    yield "preprocess again, all is stored, s", _seconds(lambda: run_stage("preprocess", study, {}))
    yield "preprocess again, nothing to do, s", _seconds(lambda: run_stage("preprocess", study, {}))
    yield "look for files that are gone, s", _seconds(lambda: refresh_manifests(study))
    yield "read the catalog, s", _seconds(lambda: Catalog.read(catalog))
    yield "read the catalog and draw a first batch, s", _seconds(lambda: _first_batch(study))
    yield "peak memory, GiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _inventory(study: Study) -> Inventory:
    return Inventory.read(study.folder / "inventory" / "scans.parquet")


def _multiply(study: Study, count: int, split: str = "train") -> None:
    """Let one scan and its volume stand for `count` of them, of as many subjects."""
    inventory, path = _inventory(study), study.folder / "inventory" / "scans.parquet"
    one = inventory.scans[0]
    names = [f"{number:012x}" for number in range(count)]
    replace(
        inventory,
        scans=tuple(replace(one, id=name, subject=f"s{name}", split=split) for name in names),
    ).write(path)
    origin = next(iter(study.pseudonyms.origins.values()))
    study.pseudonyms.write([replace(origin, id=name) for name in names])
    done = path.parent / COMPLETION_RECORD
    record = read_json(done)
    record["sizes"][path.name] = path.stat().st_size
    record["manifest"]["files"][path.name] = sha256_file(path)
    record["sizes"] = {name: size for name, size in record["sizes"].items() if ".." not in name}
    write_json(done, record)
    volumes = study.folder / "preprocess" / "volumes"
    for name in names:
        link = volumes / f"{name}.zarr"
        if not link.exists():
            link.symlink_to(volumes / f"{one.id}.zarr")


def _first_batch(study: Study) -> None:
    catalog = Catalog.read(study.folder / "preprocess" / "catalog.parquet")
    reader = CropReader(study.folder / "preprocess" / "volumes", catalog)
    Sampler(catalog.entries, reader, study.views, (8, 8, 8), batch_size=8, seed=0).batch(0)


if __name__ == "__main__":
    main()
