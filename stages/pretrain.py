"""Pretrain the encoder on the training subjects' volumes.

The list of volumes is frozen when a run starts: scans that come later wait until the study raises
`training.cohort`, for a week of GPU time is never restarted by a copied file. Every combination of
sections has a run folder of its own, so going back to an earlier one finds its weights again.

It is the one stage that several ranks may run; the first of them writes all there is to read.
"""

import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_pipeline.atomic import read_json, sha256_json, write_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.card import CARD, PROOF, WEIGHTS
from ssl_pipeline.objectives.size import Cost, cost
from ssl_pipeline.progress import say
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.training import size
from ssl_pipeline.training.metrics import read as read_metrics
from ssl_pipeline.training.world import World
from ssl_pipeline.volumes.inventory import salt_of
from stages import preprocess
from stages.contract import Made, manifest_hash
from stages.need import RECORDS, Figure, Known, Need, Place, assumed, counted, measured
from stages.study import Study

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.training.loop import Run

CHOSEN_BY = (  # what decides which volumes there are, and how they look
    "preprocess",
    "store",
    "data.splits.fractions",
    "data.splits.lists",
    "data.splits.stratify",
    "data.splits.seed",
    "data.roots.*.weight",
    "data.roots.*.modality",
    "data.roots.*.intensity_offset",
    "data.roots.*.missing_value",
    "data.roots.*.masks",
)
PICTURES_BYTES = 120_000
READS = ("seed", *CHOSEN_BY, "views", "model", "objective", "training")
AFTER = ("preprocess",)
VERSION = 4
RUN_VERSION = 3  # raised when an earlier run cannot be gone on with
MAKES = (
    "cohort-*.json",
    "run.json",
    "pictures.npz",
    "encoder/encoder.json",
    "encoder/encoder.safetensors",
    "encoder/proof.safetensors",
    "encoder/README.md",
    "encoder/trained_on.parquet",
    "runs/*/metrics.jsonl",
    "runs/*/checkpoints/step-*",
    "runs/*/tensorboard/events.*",
)


def inputs(study: Study) -> dict[str, str]:
    """The frozen list of volumes, made here when a run has none yet; tells who waits for the next.

    That is told here and not in `run`, for a run that is done is not run again when a scan is new.
    """
    manifest_hash(study, "preprocess")
    frozen = _frozen(study)
    if World.from_environment().first:
        _say_what_waits(frozen, Catalog.read(study.folder / "preprocess" / "catalog.parquet"))
    return {"cohort": sha256_json(list(frozen.items()))}


def run(study: Study, out: Path) -> Made:
    """Train to the last step, from the newest checkpoint on, and write encoder and pictures."""
    from ssl_pipeline.export import trained_on
    from ssl_pipeline.export.bundle import save_bundle
    from ssl_pipeline.report.pictures import training_pictures

    catalog = Catalog.read(study.folder / "preprocess" / "catalog.parquet")
    frozen, stored = _frozen(study), {entry.id: entry for entry in catalog.entries}
    entries = [stored[name] for name in frozen if name in stored]
    if not entries:
        raise UserError(
            f"None of the {len(frozen)} volumes that this cohort was frozen with is stored any "
            "more: raise training.cohort to train on those that are."
        )
    world = World.from_environment()
    training = _run(study, catalog, entries, world)
    encoder = training.train()
    if not world.first:
        return Made([], "trained with the first rank, which writes the encoder")
    trained = {
        "study": study.name,
        "objective": study.objective.name,
        "steps": study.training.steps,
        "volumes": len(entries),
        "subjects": len({e.subject or e.id for e in entries}),
        "modalities": sorted({e.modality for e in entries}),
        "ranks": world.size,
        **training.compute.to_json(),
    }
    save_bundle(
        out / "encoder", encoder, study.model, study.preprocess, study.views.crop_voxels, trained
    )
    pictures = training_pictures(training, out / "pictures.npz")
    folder = str(run_folder(study).relative_to(out))
    salt = salt_of(study.folder / "inventory" / "scans.parquet")  # the salt itself is not needed
    whom = trained_on.write(out / "encoder", frozen, entries, salt)
    write_json(out / "run.json", {"folder": folder, "salt": salt, **trained})
    # Not its README, in which its owner writes a licence.
    bundle = [out / "encoder" / name for name in (WEIGHTS, PROOF, CARD)]
    summary = (
        f"{study.training.steps} steps on {len(entries)} volumes, encoder in {out / 'encoder'}"
    )
    return Made([*bundle, whom, pictures, out / "run.json"], summary, {"trained": trained})


def need(study: Study, known: Known, on: Place) -> Need:
    """Weights, optimizer and what the way back keeps; seconds by the rate of a former run."""
    training, each = study.training, cost(study.objective, study.model, study.views)
    kept = min(training.checkpoints_kept, math.ceil(training.steps / training.checkpoint_steps))
    disk = kept * size.checkpoint_bytes(each) + size.log_bytes(training)
    model, crop = study.model, study.views.crop_voxels
    disk += 4 * (model.parameters + math.prod(crop) + model.tokens(crop) * model.width)  # bundle
    share = training.pairs / on.processes
    layers = f"{each.parameters / 1e6:.3g} million parameters, {share:.3g} pairs a process"
    return Need(
        disk=counted(disk + PICTURES_BYTES, f"{kept} checkpoints"),
        files=counted(RECORDS + 10 + 2 * kept, f"{kept} checkpoints, encoder, metrics"),
        memory=assumed(size.host_bytes(each, share, on.gpus > 0), layers),
        seconds=_seconds(study, each, on.gpus > 0),
        gpu_memory=assumed(size.gpu_bytes(each, share, training), layers) if on.gpus else None,
    )


def _seconds(study: Study, each: Cost, gpu: bool) -> Figure:
    """By the median rate of the newest run of this model and crop, else by operations."""
    pairs = study.training.steps * study.training.pairs
    out = study.folder / "pretrain"
    if (out / "run.json").exists() and (out / "encoder" / "encoder.json").exists():
        done, card = read_json(out / "run.json"), read_json(out / "encoder" / "encoder.json")
        same = card["model"] == study.model.model_dump(mode="json")
        same &= card["crop_voxels"] == list(study.views.crop_voxels)
        same &= done["objective"] == study.objective.name
        rows = read_metrics(out / done["folder"] / "metrics.jsonl")
        if same and rows and (done["device"] != "cpu") == gpu:
            rate = statistics.median(row["pairs_per_s"] for row in rows)
            workers = done["ranks"] if gpu else done["ranks"] * done["threads"]
            return measured(pairs * workers / rate, f"{rate:.3g} pairs/s in {done['folder']}")
    rate = size.pairs_per_s(each, gpu)
    where = "one H100, as fast as it is fed" if gpu else "a core with AVX-512"
    return assumed(pairs / rate, f"{rate:.3g} pairs/s on {where}")


def run_folder(study: Study) -> Path:
    """Checkpoints and metrics of this combination of sections and cohort."""
    key = sha256_json([RUN_VERSION, study.sections_hash(READS, {}), list(_frozen(study).items())])
    return study.folder / "pretrain" / "runs" / key[:12]


def other_runs(study: Study) -> list[Path]:
    """Runs of other sections or cohorts than the present ones and those of the encoder."""
    runs = sorted((study.folder / "pretrain" / "runs").glob("*"))
    kept = _kept_runs(study)
    return [run for run in runs if run not in kept] if kept else []


def old_checkpoints(study: Study) -> list[Path]:
    """Checkpoints before the newest one of the runs that are kept."""
    from ssl_pipeline.training.checkpoint import superseded

    return [path for run in _kept_runs(study) for path in superseded(run / "checkpoints")]


def random_encoder(study: Study, seed: int) -> "Encoder":
    """The same architecture from random weights: what every judgement is held against."""
    from ssl_pipeline.models.encoder import random_encoder as build

    return build(study.model, seed)


def _run(study: Study, catalog: Catalog, entries: list[Entry], world: World) -> "Run":
    import torch

    from ssl_pipeline.training.loop import Run
    from ssl_pipeline.views.sampler import Sampler

    encoder = random_encoder(study, study.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.seed)
        objective = study.objective.build(encoder)
    sampler = Sampler(
        entries,
        preprocess.reader(study, catalog, entries),
        study.views,
        encoder.patch,
        pairs=study.training.pairs,
        seed=study.seed,
    )
    return Run(
        run_folder(study),
        objective,
        sampler,
        study.training,
        study.flight,
        world=world,
    )


def _kept_runs(study: Study) -> list[Path]:
    """The present run and that of the encoder; none where the frozen list of the former is gone."""
    if not _cohort_path(study).exists():
        return []
    kept, made = [run_folder(study)], study.folder / "pretrain" / "run.json"
    return [*kept, made.parent / read_json(made)["folder"]] if made.exists() else kept


def _cohort_path(study: Study) -> Path:
    prepared = study.sections_hash(CHOSEN_BY, {})[:8]
    return study.folder / "pretrain" / f"cohort-{study.training.cohort}-{prepared}.json"


def _frozen(study: Study) -> dict[str, str]:
    """The frozen list, id to checksum, in the order in which samples are drawn from it.

    It is written when the cohort is first asked for, and decides the order from then on.
    """
    path = _cohort_path(study)
    if not path.exists():
        catalog = Catalog.read(study.folder / "preprocess" / "catalog.parquet")
        chosen = [[e.id, e.sha256] for e in catalog.entries if e.split in ("train", "")]
        if not chosen:
            raise UserError(
                "No volume belongs to the split train: see data.splits, or the split column."
            )
        write_json(path, chosen)
    return dict(read_json(path))


def _say_what_waits(frozen: dict[str, str], catalog: Catalog) -> None:
    """Tell of scans that came, went or changed since the list was frozen."""
    now = {e.id: e.sha256 for e in catalog.entries if e.split in ("train", "")}
    counts = {
        "new volumes wait": len(now.keys() - frozen.keys()),
        "of its volumes are gone": len(frozen.keys() - now.keys()),
        "of its volumes have changed": sum(now.get(n, sha) != sha for n, sha in frozen.items()),
    }
    for what, count in counts.items():
        if count:
            say(f"pretrain: {count} {what}; raise training.cohort to train anew on all.")
