"""Pretrain the encoder on the training subjects' volumes.

It starts from random weights, from those that `init_from` names, or where a finished run ended
(`training.extends`). Which run a study means, and on which volumes, is told by `runs`.

It is the one stage that several ranks may run; the first of them writes all there is to read.
"""

import math
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_pipeline.atomic import read_json, sha256_json, write_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.card import CARD, PROOF, WEIGHTS
from ssl_pipeline.objectives.size import Cost, cost
from ssl_pipeline.progress import say
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.training import moments, size
from ssl_pipeline.training.metrics import read as read_metrics
from ssl_pipeline.training.world import World
from ssl_pipeline.volumes.inventory import salt_of
from stages import preprocess
from stages.contract import Made, manifest_hash
from stages.need import RECORDS, Figure, Known, Need, Place, assumed, counted, measured
from stages.runs import (
    SECTIONS,
    base_of,
    drawn_from,
    ever_frozen,
    frozen_list,
    frozen_weights,
    frozen_words,
    no_base,
    run_folder,
)
from stages.study import Study

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.objective import Objective
    from ssl_pipeline.training.loop import Run
    from ssl_pipeline.views.sampler import Sampler

PICTURES_BYTES = 200_000
READS = SECTIONS
AFTER = ("preprocess",)
VERSION = 5
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
    "runs/*/moments/step-*.npz",
    "runs/*/checkpoints/step-*",
    "runs/*/tensorboard/events.*",
)


def inputs(study: Study) -> dict[str, str]:
    """The frozen list of volumes, made here when a run has none yet, and what the run starts from.

    Who waits for the next list is told here and not in `run`, for a run that is done is not run
    again when a scan is new.
    """
    manifest_hash(study, "preprocess")
    found = {}
    if study.training.extends:
        found["extends"] = run_folder(base_of(study)).name
    if study.init_from:
        found["init_from"] = study.init_from.digest
    if World.from_environment().first:
        _say_what_waits(study, Catalog.read(study.folder / "preprocess" / "catalog.parquet"))
    return {**found, "cohort": sha256_json(drawn_from(study))}


def run(study: Study, out: Path) -> Made:
    """Train to the last step, from the newest checkpoint on, and write encoder and pictures."""
    from ssl_pipeline.export import trained_on
    from ssl_pipeline.export.bundle import save_bundle
    from ssl_pipeline.report.pictures import training_pictures

    catalog = Catalog.read(study.folder / "preprocess" / "catalog.parquet")
    entries = trained_on_now(study, catalog)
    world = World.from_environment()
    training, started = _run(study, catalog, entries, world)
    encoder = training.train()
    if not world.first:
        return Made([], "trained with the first rank, which writes the encoder")
    verdict = training.verdict()
    trained = {
        "study": study.name,
        "objective": study.objective.name,
        "steps": study.training.steps,
        "volumes": len(entries),
        "subjects": len({e.subject or e.id for e in entries}),
        "modalities": sorted({e.modality for e in entries}),
        "ranks": world.size,
        **training.compute.to_json(),
        "verdict": verdict.name,
        **started,
    }
    save_bundle(
        out / "encoder", encoder, study.model, study.preprocess, study.views.crop_voxels, trained
    )
    pictures = training_pictures(training, out / "pictures.npz")
    folder = str(run_folder(study).relative_to(out))
    salt = salt_of(study.folder / "inventory" / "scans.parquet")  # the salt itself is not needed
    seen = study.init_from.seen() if study.init_from else None
    whom = trained_on.write(out / "encoder", ever_frozen(study), catalog.entries, salt, seen)
    write_json(out / "run.json", {"folder": folder, "salt": salt, **trained})
    # Not its README, in which its owner writes a licence.
    bundle = [out / "encoder" / name for name in (WEIGHTS, PROOF, CARD)]
    summary = (
        f"{study.training.steps} steps on {len(entries)} volumes, encoder in {out / 'encoder'}; "
        f"{verdict.name}: {verdict.reason}"
    )
    # The reason holds rates, which no two runs share: what is hashed names the verdict alone.
    told = {"trained": {**trained, "reason": verdict.reason}}
    return Made([*bundle, whom, pictures, out / "run.json"], summary, told)


def trained_on_now(study: Study, catalog: Catalog) -> list[Entry]:
    """The volumes of the frozen list that are stored. Raises UserError where none is."""
    frozen, stored = frozen_list(study), {entry.id: entry for entry in catalog.entries}
    weights, words = frozen_weights(study), frozen_words(study)
    entries = [
        replace(entry, weight=weights.get(entry.id, entry.weight), **words.get(entry.id, {}))
        for entry in (stored[name] for name in frozen if name in stored)
    ]
    if not entries:
        raise UserError(
            f"None of the {len(frozen)} volumes that this cohort was frozen with is stored any "
            "more: raise training.cohort to train on those that are."
        )
    return entries


def need(study: Study, known: Known, on: Place) -> Need:
    """Weights, optimizer and what the way back keeps; seconds by the rate of a former run."""
    training, each = study.training, cost(study.objective, study.model, study.views)
    steps = training.steps - training.first_step
    kept = min(training.checkpoints_kept, math.ceil(steps / training.checkpoint_steps))
    disk = kept * size.checkpoint_bytes(each, training) + size.log_bytes(training, study.flight)
    pictures = min(moments.PARTS, math.ceil(steps / study.flight.every_steps))
    model, crop = study.model, study.views.crop_voxels
    disk += 4 * (model.parameters + math.prod(crop) + model.tokens(crop) * model.width)  # bundle
    share = training.pairs / on.processes / training.accumulate
    blocks = size.read_bytes(training.pairs / on.processes, study.views, training, study.flight)
    layers = f"{each.parameters / 1e6:.3g} million parameters, {share:.3g} pairs at once"
    return Need(
        disk=counted(disk + PICTURES_BYTES, f"{kept} checkpoints"),
        files=counted(RECORDS + 10 + 2 * kept + pictures, f"{kept} checkpoints, encoder, metrics"),
        memory=assumed(size.host_bytes(each, share, on.gpus > 0) + blocks, layers),
        seconds=_seconds(study, each, on.gpus > 0),
        gpu_memory=assumed(size.gpu_bytes(each, share, training), layers) if on.gpus else None,
    )


def _seconds(study: Study, each: Cost, gpu: bool) -> Figure:
    """By the median rate of the newest run of this model and crop, else by operations."""
    pairs = (study.training.steps - study.training.first_step) * study.training.pairs
    out = study.stage_folder("pretrain", {})
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


def random_encoder(study: Study, seed: int) -> "Encoder":
    """The same architecture from random weights: what every judgement is held against."""
    from ssl_pipeline.models.encoder import random_encoder as build

    return build(study.model, seed)


def _run(
    study: Study, catalog: Catalog, entries: list[Entry], world: World
) -> tuple["Run", dict[str, str]]:
    """The run, and what it starts from, in sentences for its record."""
    from ssl_pipeline.training.loop import Run

    encoder, started = random_encoder(study, study.seed), {}
    if study.init_from:
        from ssl_pipeline.init_from.take_over import take_over

        found, source = study.init_from.read(), study.init_from.source
        started["init_from"] = take_over(encoder, found, source)
    if study.training.extends:
        started["extends"] = _extension(study)
    if world.first:
        for sentence in started.values():
            say(sentence)
    run = Run(
        run_folder(study),
        objective_around(encoder, study),
        sampler(study, catalog, entries, study.training.pairs),
        study.training,
        study.flight,
        world=world,
        start=partial(_end_of_base, study) if study.training.extends else None,
        config={
            key: study.public[key] for key in ("seed", "preprocess", "views", "model", "objective")
        },
    )
    return run, started


def objective_around(encoder: "Encoder", study: Study) -> "Objective":
    """What the study optimises, its heads drawn from the study's seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.seed)
        return study.objective.build(encoder)


def sampler(study: Study, catalog: Catalog, entries: list[Entry], pairs: int) -> "Sampler":
    """What draws `pairs` places a step from these volumes."""
    from ssl_pipeline.objectives.alike import traits
    from ssl_pipeline.views.sampler import Sampler

    contrast = getattr(study.objective, "contrast", None)
    return Sampler(
        entries,
        preprocess.reader(study, catalog, entries),
        study.views,
        study.model.patch_voxels,
        pairs=pairs,
        seed=study.seed,
        traits=traits(entries, contrast.alike) if contrast else None,
    )


def _end_of_base(study: Study) -> dict[str, Any]:
    """The state that the run to be extended ended in. Raises UserError where it did not end."""
    from ssl_pipeline.training.checkpoint import newest

    state = newest(run_folder(base_of(study)) / "checkpoints")
    if state is None:
        raise no_base(study, "has left no checkpoint here")
    if state["step"] < study.training.first_step:
        raise no_base(study, f"has come to step {state['step']} only")
    return {**state, "embedded": None}  # of a bank without the scans that came


def _extension(study: Study) -> str:
    """What a run goes on from, in words."""
    base = study.training.extends
    assert base
    return (
        f"extends: goes on to step {study.training.steps} on cohort {study.training.cohort} from "
        f"the end of the run of {base.steps} steps on cohort {base.cohort} "
        f"({run_folder(base_of(study)).name})."
    )


def _say_what_waits(study: Study, catalog: Catalog) -> None:
    """Tell of scans that came, went or changed since the list was frozen."""
    frozen, weights = frozen_list(study), frozen_weights(study)
    weighed = {e.id: e.weight for e in catalog.entries}
    now = {e.id: e.sha256 for e in catalog.entries if e.split in ("train", "")}
    counts = {
        "new volumes wait": len(now.keys() - frozen.keys()),
        "of its volumes are gone": len(frozen.keys() - now.keys()),
        "of its volumes have changed": sum(now.get(n, sha) != sha for n, sha in frozen.items()),
        "of its volumes are weighted otherwise": sum(
            weighed.get(name, weight) != weight for name, weight in weights.items()
        ),
    }
    for what, count in counts.items():
        if count:
            way_out = "raise training.cohort to train anew on all, or to go on by training.extends"
            say(f"pretrain: {count} {what}; {way_out}.")
