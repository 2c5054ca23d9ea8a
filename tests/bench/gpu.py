"""A GPU's first minutes, prepared: one folder to take there, and one command to run in it.

    python -m tests.bench.gpu pack                # here, with the public data: volumes in build/gpu
    python -m tests.bench.gpu run --minutes 8     # there, with that folder and no other data
    python -m stages probe --config build/gpu/study.yaml task=organ    # here, with what came back

`run` calibrates and checks the hardware, compares steps with MONAI's masked autoencoder and with
dense masking, and pretrains for the rest of the time. Each part is in build/gpu/gpu.json as soon as
it ends, so that a lease that ends early has lost the rest alone; a part that fails leaves its
sentence there. Figures worth keeping go to workflows/studies/results/gpu.json.
"""

import argparse
import gc
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import write_json, write_text

if TYPE_CHECKING:
    from ssl_pipeline.models import ModelConfig
    from ssl_pipeline.training.compute import Compute
    from stages.core.study import Study
    from tests.bench.steps import StepSize
    from tests.bench.table import BenchmarkRow

FOLDER, STUDY_FILE, RESULTS_FILE = Path("build/gpu"), "study.yaml", "gpu.json"
SOURCE = Path("workflows/studies/openkbp_hippocampus.yaml")
MAX_PACK_MIB = 60
# A third of the scans, which leave room for the packages that a bare machine lacks.
INCLUDED = {"openkbp": "pt_1*.nii.gz", "hippocampus": "hippocampus_1*.nii.gz"}
SPLITS = {"fractions": {"val": 0.1, "test": 0.3}}
CALIBRATION_S, PACE_S = 60.0, 10.0  # besides what is built and compiled meanwhile
EXPORT_S = 30.0  # left for the end of pretraining: last snapshot, bundle, pictures
TINY_S = 3.0  # of pretraining, however long the parts before have taken
ROUNDS = 11
TRAINING = {"batch_size": 64, "loader_threads": 8, "checkpoint_every": 20, "hours": 0.05}


@dataclass(frozen=True)
class ComparedModel:
    """A model of the tables."""

    model: "ModelConfig"
    batch_size: int
    peers: "StepSize | None"  # whose size they have; None where there are none


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("pack", "run"))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--tiny", action="store_true", help="the smallest model, in seconds")
    given = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if given.part == "pack":
        pack(given.folder)
    else:
        run(given.folder, given.device, given.minutes, is_tiny=given.tiny)


def pack(folder: Path) -> None:
    """Store the volumes of the public study in the folder. Raises UserError where it is too big."""
    from stages.core.runner import run_stage
    from stages.core.study_file import load_study

    content = yaml.safe_load(SOURCE.read_text())
    del content["ablate"]
    content["data"]["splits"] = SPLITS
    for root in content["data"]["roots"]:
        root["include"] = INCLUDED[root["name"]]
    content |= {
        "name": "gpu",
        "output": str(folder / "out"),
        "private": str(folder.with_name(f"{folder.name}-private")),  # stays here
        "store": {"codec": "zstd"},
        "model": {"preset": "S"},
        "training": TRAINING,
    }
    write_text(folder / STUDY_FILE, yaml.safe_dump(content, sort_keys=False))
    for stage in ("inventory", "preprocess"):
        run_stage(stage, load_study(folder / STUDY_FILE), {})
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    if size > MAX_PACK_MIB:
        raise UserError(
            f"{folder} has {size:.0f} MiB, and {MAX_PACK_MIB} may be taken along: include fewer."
        )
    print(f"{folder} has {size:.0f} MiB: take it along, and run `python -m tests.bench.gpu run`.")


def run(folder: Path, device: str, minutes: float, *, is_tiny: bool) -> None:
    """Measure, compare and pretrain in so many minutes, each part saved as it ends."""
    end = time.monotonic() + 60 * minutes
    path = folder / STUDY_FILE
    study = _change_training(path, device=device)
    parts: dict[str, Callable[[], Any]] = {
        "calibration": lambda: _calibrate(path, 0.1 if is_tiny else CALIBRATION_S)
    }
    for name, compared in _compared_models(study, is_tiny).items():
        parts[name] = partial(_rows, study, name, compared, is_tiny)
    parts["pretraining"] = lambda: _pretrain(
        path, TINY_S if is_tiny else end - time.monotonic() - EXPORT_S
    )
    results: dict[str, Any] = {}
    for name, work in parts.items():
        began = time.monotonic()
        try:
            results[name] = work()
        except Exception:  # of one part, which the others do without
            results[name] = {"failed": traceback.format_exc()}
        results[f"{name}, seconds"] = round(time.monotonic() - began, 1)
        write_json(folder / RESULTS_FILE, results)
        print(f"{name}: {json.dumps(results[name], indent=1)}", flush=True)


def _change_training(path: Path, **changed: Any) -> "Study":
    """Write other settings of `training` into the study's file, and read it."""
    from stages.core.study_file import load_study

    content = yaml.safe_load(path.read_text())
    write_text(path, yaml.safe_dump(content | {"training": content["training"] | changed}))
    return load_study(path)


def _calibrate(path: Path, seconds: float) -> Any:
    """What `ssl-pipeline calibrate` records; a failed check stays in it, as failed."""
    from stages.commands.calibrate import measure_and_record
    from stages.core import layout
    from stages.core.study_file import load_study

    measure_and_record(path, "gpu", seconds)
    return json.loads(layout.calibration_file(load_study(path), "gpu").read_text())


def _compared_models(study: "Study", is_tiny: bool) -> dict[str, "ComparedModel"]:
    """The models by their names in the tables."""
    from ssl_pipeline.models import ResEnc, ViT
    from tests.bench import steps

    if is_tiny:
        batch_size = study.training.batch_size
        return {"ViT-tiny": ComparedModel(study.model, batch_size, steps.SMALLEST)}
    return {
        "ViT-S": ComparedModel(ViT(preset="S"), 64, steps.VIT_S),
        "ViT-B": ComparedModel(ViT(preset="B"), 64, steps.VIT_B),
        "resenc L": ComparedModel(ResEnc(preset="L"), 16, None),
    }


def _rows(
    study: "Study", name: str, compared: "ComparedModel", is_tiny: bool
) -> list[dict[str, Any]]:
    """Rows of a real run of the model, then of its steps beside those of peers of equal size."""
    from ssl_pipeline.training.compute import select_compute
    from ssl_pipeline.training.ranks import RankInfo

    training = study.training.model_copy(update={"batch_size": compared.batch_size})
    sized = study.model_copy(update={"model": compared.model, "training": training})
    rows = list(_run_rows(name, sized, 0.0 if is_tiny else PACE_S))
    if compared.peers:
        compute = select_compute(study.training, RankInfo())
        rows += _peer_rows(name, study, compared.peers, compute, 1 if is_tiny else ROUNDS)
    return [asdict(row) for row in rows]


def _run_rows(name: str, study: "Study", seconds: float) -> Iterator["BenchmarkRow"]:
    """From the store to the step: rate, MFU, waiting for data, and memory against its estimate."""
    import torch

    from ssl_pipeline.objectives.cost import training_cost
    from ssl_pipeline.store.catalog import Catalog
    from ssl_pipeline.training import cost
    from ssl_pipeline.training.pace import measure_pace
    from ssl_pipeline.training.ranks import RankInfo
    from stages.core import layout
    from stages.core.pretraining_runs import read_cohort
    from stages.trainer import build_measured_trainer, build_sampler
    from tests.bench.table import BenchmarkRow
    from tests.bench.train import GOALS

    catalog, batch_size = Catalog.read(layout.catalog_table(study)), study.training.batch_size
    sampler = build_sampler(study, catalog, read_cohort(study).entries(catalog), batch_size)
    trainer = build_measured_trainer(study, sampler, study.folder / "measured", RankInfo())
    on_gpu = trainer.compute.device != "cpu"
    if on_gpu:
        gc.collect()  # trainers of the parts before, which hold themselves
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    pace = measure_pace(trainer, seconds)
    rate, where = f"{batch_size / pace.step_s:.3g}", f"{name}, {trainer.compute.precision}"
    yield BenchmarkRow(f"{where}, store to step, samples a second", rate, "")
    waits = 1 - pace.data_wait if on_gpu else None
    yield BenchmarkRow(f"{where}, waits for data", f"{pace.data_wait:.1%}", "", waits, 0.95)
    share = pace.mfu if on_gpu else None
    yield BenchmarkRow(f"{where}, MFU", f"{pace.mfu:.1%}", "of the peak", share, GOALS["mfu"])
    each = training_cost(study.objective, study.model, study.views)
    expected = cost.gpu_bytes(each, float(batch_size), study.training) / 2**30
    if on_gpu:
        peak = torch.cuda.max_memory_reserved() / 2**30
        yield BenchmarkRow(
            f"{where}, peak memory", f"{peak:.1f} GiB", f"estimate: {expected:.1f} GiB"
        )


def _peer_rows(
    name: str, study: "Study", size: "StepSize", compute: "Compute", rounds: int
) -> Iterator["BenchmarkRow"]:
    """Steps on crops that are ready, in turns: ours, MONAI's, and ours with dense masking."""
    from tests.bench import benchmark_study, steps
    from tests.bench.table import BenchmarkRow, interleaved_times
    from tests.bench.train import GOALS

    samples = benchmark_study.build_sampler(study, size.views, size.batch_size).batch(0)
    kinds = ("ours", "MONAI", "dense")
    works = {kind: steps.build_step(kind, size, compute, samples) for kind in kinds}
    times = interleaved_times(works, rounds)
    for peer, goal in (("MONAI", GOALS["MONAI"]), ("dense", None)):
        ours, theirs = (2 * size.batch_size / times.median(kind) for kind in ("ours", peer))
        yield BenchmarkRow(
            f"{name}, crops of {size.side}^3 a second, {compute.precision}",
            f"{ours:.3g}",
            f"{peer}: {theirs:.3g}",
            times.ratio("ours", peer),
            goal,
        )


def _pretrain(path: Path, seconds: float) -> Any:
    """Pretrain for so many seconds by `training.hours`; returns the record of the run."""
    from ssl_pipeline.training.run_record import read_run_record
    from stages.core.runner import run_stage

    if seconds <= 0:
        raise UserError("No time was left to pretrain.")
    study = _change_training(path, hours=round(seconds / 3600, 6))
    run_stage("pretrain", study, {})
    record = read_run_record(study.stage_folder("pretrain", {}))
    assert record
    return {**record.model_dump(mode="json"), "encoder": str(study.encoder)}


if __name__ == "__main__":
    main()
