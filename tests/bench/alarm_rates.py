"""`make bench-alarms`: alarm rates of monitoring on deliberately broken and on sound runs.

Short real runs, each broken in one way (`broken_runs`) or sound, on real CTs and MRs. Thresholds
are set on `TUNING_SEEDS` and reported on `TEST_SEEDS` alone. Finished runs are kept, with all rows
of their logs, in `build/bench/alarms/runs.jsonl`: diagnosing them with other settings needs no new
run. `build/bench/alarms.json` gets the rows.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.monitoring.diagnosis import diagnose
from ssl_pipeline.objectives import Hybrid
from ssl_pipeline.objectives.terms.term import diagnosis_rules
from ssl_pipeline.training.config import Training

if TYPE_CHECKING:
    from ssl_pipeline.views.sampler import Sampler
    from stages.core.study import Study
    from tests.bench.table import BenchmarkRow

OUT = Path("build/bench/alarms")
RUNS = OUT / "runs.jsonl"
TUNING_SEEDS, TEST_SEEDS = range(3), range(3, 13)
BATCH_SIZE, STEPS, LONG_STEPS, SNAPSHOTS = 12, 72, 288, 12
SUBJECTS_PER_ROOT = 4  # subjects of each root where a step must hold several places of one
PROCESSES = 2


@dataclass(frozen=True)
class RunKind:
    """One kind of run, broken or sound."""

    name: str
    expected: str = "healthy"
    fault: str = "nothing"  # a function of `broken_runs`
    data: str = "mixed"
    objective: str = "hybrid"
    learning_rate_factor: float = 1.0  # times the default learning rate
    steps: int = STEPS
    fault_step: int = 0  # step in which the fault begins

    @property
    def monitoring(self) -> Monitoring:
        """Runs go on after an alarm; waiting for data, which no fault here causes, is none."""
        return Monitoring(
            snapshot_every=self.steps // SNAPSHOTS, snapshot_samples=32, stop_on=(), max_data_wait=1
        )


FAULTS = (
    RunKind("no negatives", "collapsed", "no_negatives"),
    # The loss rises to chance with all embeddings alike, which is a collapse before it is a climb.
    RunKind("learning rate x30", "collapsed", learning_rate_factor=30),
    RunKind("shared intensity augmentation", "shortcut", "shared_intensity"),
    RunKind("padding in the loss", "shortcut", "padding_in_the_loss"),
    RunKind("same-subject negatives", "shortcut", "same_subject_negatives", data="few"),
    RunKind("frozen encoder", "collapsed", "frozen_encoder"),
    RunKind("absolute positions", "shortcut", "absolute_positions"),
    RunKind("NaN batch", "diverging", "nan_batch", fault_step=STEPS // 2),
)
TERM_RULES = diagnosis_rules(Hybrid().list_terms())  # of all terms; most runs have them all
DEFAULT = "default weights"  # of contrast, which leave the loss between subjects out
BROKEN = (
    *FAULTS,
    *(
        replace(kind, name=f"{kind.name}, {DEFAULT}", objective=f"hybrid, {DEFAULT}")
        for kind in FAULTS
        if kind.fault != "same_subject_negatives"
    ),
)
SOUND = (
    RunKind("hybrid, CT and MR"),
    RunKind("hybrid, CT", data="CT"),
    RunKind("hybrid, CT and MR, half the learning rate", learning_rate_factor=0.5),
    RunKind("hybrid, CT and MR, 8 subjects", data="few"),
    RunKind("mae, CT and MR", objective="mae"),
    RunKind("contrastive, CT", objective="contrastive", data="CT"),
    RunKind(f"hybrid, CT and MR, {LONG_STEPS} steps", steps=LONG_STEPS),
    RunKind(
        f"contrastive, CT, {LONG_STEPS} steps", objective="contrastive", data="CT", steps=LONG_STEPS
    ),
    RunKind(f"mae, CT and MR, {LONG_STEPS} steps", objective="mae", steps=LONG_STEPS),
    RunKind(f"hybrid, CT and MR, {DEFAULT}", objective=f"hybrid, {DEFAULT}"),
    RunKind(f"hybrid, CT, {DEFAULT}", data="CT", objective=f"hybrid, {DEFAULT}"),
    RunKind(f"contrastive, CT, {DEFAULT}", data="CT", objective=f"contrastive, {DEFAULT}"),
)
KINDS = (*BROKEN, *SOUND)


def main() -> None:
    # Before torch is imported; see `stages.core.process`.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(
        description="Alarm rates on deliberately broken and on sound runs."
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[*TUNING_SEEDS, *TEST_SEEDS])
    seeds = parser.parse_args().seeds
    study = prepare_study()
    done = {(run["kind"], run["seed"]) for run in finished_runs()}
    todo = [(kind, seed) for seed in seeds for kind in KINDS if (kind.name, seed) not in done]
    # Spawned, for threads of torch do not survive a fork.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run, study, kind, seed) for kind, seed in todo]
        for number, future in enumerate(as_completed(futures), start=1):
            with open(RUNS, "a") as file:
                file.write(json.dumps(future.result()) + "\n")
            print(f"{number}/{len(todo)} runs", file=sys.stderr)
    from tests.bench.table import write_table

    write_table([*rows(finished_runs())], Path("build/bench/alarms.json"))


def prepare_study() -> "Study":
    """CTs of heads and MRs about the hippocampus in one store; quick where it is there."""
    from ssl_pipeline.volumes.config import Splits
    from stages.core.runner import run_stage
    from stages.core.study_file import load_study

    if "SSL_PIPELINE_DATA" not in os.environ:
        sys.exit("Set SSL_PIPELINE_DATA to the folder that holds openkbp and hippocampus.")
    ct, mr = (
        load_study(Path(f"workflows/studies/{name}.yaml")) for name in ("openkbp", "hippocampus")
    )
    roots = (
        ct.data.roots[0].model_copy(update={"include": "pt_1*.nii.gz"}),
        mr.data.roots[0].model_copy(update={"include": "hippocampus_[01]*.nii.gz"}),
    )
    splits = Splits.model_validate(
        {"fractions": {"val": 0, "test": 0}, "duplicate_threshold": None}
    )
    data = ct.data.model_copy(update={"roots": roots, "splits": splits})
    study = ct.model_copy(update={"data": data, "tasks": {}, "output": str(OUT / "store")})
    for stage in ("inventory", "preprocess"):
        run_stage(stage, study, {})
    return study


def finished_runs() -> list[dict[str, Any]]:
    """All runs so far: kind, seed, and what they logged."""
    lines = RUNS.read_text().splitlines() if RUNS.exists() else []
    return [json.loads(line) for line in lines]


def run(study: "Study", kind: RunKind, seed: int) -> dict[str, Any]:
    """One run from random weights to its end, or to where it has no numbers any more."""
    import torch

    from ssl_pipeline.models import ViT
    from ssl_pipeline.models.encoder import random_encoder
    from ssl_pipeline.objectives import Contrastive, Mae
    from ssl_pipeline.objectives.contrast import Contrast
    from ssl_pipeline.training.loop import RunSettings, StoppedError, Trainer
    from ssl_pipeline.training.metrics_log import read_metrics
    from tests.bench import broken_runs

    both = Contrast(subject_weight=0.3, local_weight=1)  # the faults are of both kinds of contrast
    sections = {
        "hybrid": Hybrid(contrast=both),
        "mae": Mae(),
        "contrastive": Contrastive(contrast=both),
        f"hybrid, {DEFAULT}": Hybrid(),
        f"contrastive, {DEFAULT}": Contrastive(),
    }
    torch.manual_seed(seed)
    objective = sections[kind.objective].build(random_encoder(ViT(), seed))
    sampler = _sampler(study, kind.data, seed)
    training = Training(
        steps=kind.steps,
        batch_size=BATCH_SIZE,
        learning_rate=kind.learning_rate_factor * Training().learning_rate,
        precision="fp32",
        device="cpu",
        threads=1,
        log_every=kind.steps // SNAPSHOTS,
        checkpoint_every=kind.steps,
    )
    folder = OUT / "work" / f"{kind.name} {seed}"
    shutil.rmtree(folder, ignore_errors=True)
    broken = getattr(broken_runs, kind.fault)(objective, sampler, kind.fault_step)
    # Where the loss is no number the loop ends, whatever `stop_on` says.
    with broken, suppress(StoppedError):
        Trainer(folder, objective, sampler, RunSettings(training, kind.monitoring)).train()
    history = read_metrics(folder / "metrics.jsonl")
    shutil.rmtree(folder)
    return {"kind": kind.name, "seed": seed, "history": history}


def _sampler(study: "Study", data: str, seed: int) -> "Sampler":
    """Of both roots, of one modality, or of few subjects."""
    from ssl_pipeline.store.catalog import Catalog
    from ssl_pipeline.store.reader import CropReader
    from ssl_pipeline.views.sampler import Sampler

    stored = study.folder / "preprocess"
    catalog = Catalog.read(stored / "catalog.parquet")
    entries = [e for e in catalog.entries if data in ("mixed", "few", e.modality)]
    if data == "few":
        of = {m: dict.fromkeys(e.subject for e in entries if e.modality == m) for m in ("CT", "MR")}
        kept = {subject for names in of.values() for subject in list(names)[:SUBJECTS_PER_ROOT]}
        entries = [e for e in entries if e.subject in kept]
    reader = CropReader(stored / "volumes", catalog)
    return Sampler(entries, reader, study.views, (8, 8, 8), batch_size=BATCH_SIZE, seed=seed)


def rows(runs: Sequence[dict[str, Any]]) -> Iterator["BenchmarkRow"]:
    """Results on the test seeds: alarms on broken runs, and none on sound ones."""
    from tests.bench.table import BenchmarkRow

    tested = [run for run in runs if run["seed"] in TEST_SEEDS]
    first = {
        kind: [first_alarm(run["history"], kind) for run in tested if run["kind"] == kind.name]
        for kind in KINDS
    }
    for kind in (kind for kind in BROKEN if first[kind]):
        alarms, count = [alarm for alarm in first[kind] if alarm], len(first[kind])
        noticed = f"{len(alarms)} of {count}, {_counted(alarms)}"
        delay = statistics.median(alarm.delay for alarm in alarms) if alarms else math.nan
        detail = f"{kind.expected} expected; after {delay:g} steps"
        yield BenchmarkRow(f"broken: {kind.name}", noticed, detail, len(alarms) / count, 1)
    for kind in (kind for kind in SOUND if first[kind]):
        alarms, count = [alarm for alarm in first[kind] if alarm], len(first[kind])
        quiet = f"{count - len(alarms)} of {count} without an alarm"
        yield BenchmarkRow(f"sound: {kind.name}", quiet, _counted(alarms), 1 - len(alarms) / count)
    sound = [alarm for kind in SOUND for alarm in first[kind]]
    if sound:
        false = sum(alarm is not None for alarm in sound)
        quiet = f"{len(sound) - false} of {len(sound)} without an alarm"
        yield BenchmarkRow("sound: all", quiet, "", 1 - false / len(sound), 1 - 1 / len(sound))


def _counted(alarms: Sequence["FirstAlarm"]) -> str:
    names = Counter(alarm.name for alarm in alarms)
    return ", ".join(f"{name} {count}" for name, count in names.items())


@dataclass(frozen=True)
class FirstAlarm:
    """The first alarm of a run."""

    name: str
    delay: int  # steps since the fault began


def first_alarm(history: Sequence[dict[str, Any]], kind: RunKind) -> FirstAlarm | None:
    """The first alarm of a run, if not before the fault began."""
    for last in range(1, len(history) + 1):
        diagnosis = diagnose(history[:last], kind.monitoring, TERM_RULES)
        if diagnosis.name != "healthy":
            delay = history[last - 1]["step"] - kind.fault_step
            return FirstAlarm(diagnosis.name, delay) if delay > 0 else None
    return None


if __name__ == "__main__":
    main()
