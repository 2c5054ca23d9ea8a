"""Pretrain the encoder on the training subjects' volumes.

It starts from random weights, from those that `init_from` names, or where a finished run ended
(`training.continue_from`). `core/pretraining_runs.py` decides which run a study
means, and on which volumes.

It is the one stage that several ranks may run; the first of them writes all files.
"""

import math
import statistics
from collections.abc import Container
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.manifest import (
    BUNDLE_MANIFEST,
    DECODER_FILE,
    SELF_TEST_FILE,
    WEIGHTS_FILE,
    read_manifest,
)
from ssl_pipeline.export.owner_files import NEW_CARD_FILE, README_FILE
from ssl_pipeline.export.stored_values import stored_values_of
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.io.records import parse_object, read_json_if_whole, write_record
from ssl_pipeline.models.unet_config import unet_size
from ssl_pipeline.objectives.cost import TrainingCost, training_cost
from ssl_pipeline.progress import info
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.training import cost, snapshots
from ssl_pipeline.training.metrics_log import METRICS_FILE, read_metrics
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.training.run_record import (
    RUN_RECORD,
    RunRecord,
    TrainingSummary,
    read_run_record,
)
from ssl_pipeline.volumes.inventory import Inventory, read_salt_fingerprint
from stages import preprocess
from stages.core import layout
from stages.core.initial_weights import freeze_initial_weights
from stages.core.pretraining_runs import (
    HASHED_KEYS,
    Cohort,
    PretrainingRun,
    freeze_cohort,
    missing_parent_error,
    pretraining_run,
)
from stages.core.records import manifest_hash
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    Quantity,
    ResourceEstimate,
    assumed,
    counted,
    measured,
)
from stages.core.stage import StageResult
from stages.core.study import INIT_FROM, Study
from stages.core.unfinished_runs import report_unfinished_runs
from stages.criteria import fix_criteria
from stages.evaluation_check import check_evaluations
from stages.replayed_subjects import replay_mix

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.models.unet_decoder import PretrainedNetwork
    from ssl_pipeline.objectives.objective import Objective
    from ssl_pipeline.training.checkpoint import TrainerState
    from ssl_pipeline.training.loop import Trainer
    from ssl_pipeline.views.sampler import ReplayMix, Sampler

IMAGES_BYTES = 200_000
BUNDLE_FILES = (
    *(BUNDLE_MANIFEST, WEIGHTS_FILE, SELF_TEST_FILE, README_FILE, NEW_CARD_FILE),
    *(DECODER_FILE, training_subjects.FILE_NAME),
)
TITLE = "Pretrain the encoder on the volumes of the training subjects"
CONFIG_KEYS = (*HASHED_KEYS, "quality")  # quality is in the bundle, and starts no other run
DEPENDS_ON = ("preprocess",)
VERSION = 8
RUN_PATTERN = f"{layout.RUNS_FOLDER}/{layout.RUN_NAME_PATTERN}"
OUTPUTS = (
    "cohort-*.json",
    "initial-weights-*.json",
    RUN_RECORD,
    snapshots.FEATURE_PCA_FILE,
    *(f"{layout.ENCODER_FOLDER}/{name}" for name in BUNDLE_FILES),
    f"{RUN_PATTERN}/{METRICS_FILE}",
    f"{RUN_PATTERN}/{snapshots.FOLDER}/{snapshots.STEP_PATTERN}.npz",
    *(
        f"{RUN_PATTERN}/{layout.CHECKPOINTS_FOLDER}/{snapshots.STEP_PATTERN}.{end}"
        for end in ("pt", "json")
    ),
    f"{RUN_PATTERN}/{layout.REPLAY_FILE}",
    f"{RUN_PATTERN}/tensorboard/events.*",
)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = True, False, True
SHARDED, PER_TRIAL = False, True


def is_needed(study: Study) -> bool:
    """Whether the study evaluates an encoder of its own."""
    return study.has_pretraining


def inputs(study: Study) -> dict[str, str]:
    """The cohort, which `run` freezes if there is none yet, and what the run starts from.

    Scans that wait for the next cohort are reported here and not in `run`, for a finished run does
    not run again when a scan is new.
    """
    manifest_hash(study, "preprocess")
    meant = pretraining_run(study)
    found = {}
    if meant.parent:
        found["continue_from"] = meant.parent.folder.name
    if study.init_from:
        found[INIT_FROM] = study.init_from.files_sha256
    if RankInfo.from_environment().is_first:
        _report_pending_scans(meant.cohort, Catalog.read(layout.catalog_table(study)))
    return {**found, "cohort": sha256_json(meant.cohort_items)}


def run(study: Study, out: Path) -> StageResult:
    """Train to the last step, from the newest checkpoint on, and write encoder and images."""
    from ssl_pipeline.training.feature_pca import write_feature_pca

    check_evaluations(study)  # which the study may have changed since the inventory was built
    catalog, meant = Catalog.read(layout.catalog_table(study)), pretraining_run(study)
    entries = meant.cohort.entries(catalog)
    world = RankInfo.from_environment()
    if world.is_first:
        freeze_cohort(meant)
        freeze_initial_weights(study)
        fix_criteria(study)
        report_unfinished_runs(meant)
    training, started = build_trainer(meant, catalog, entries, world)
    training.train()
    if not world.is_first:
        return StageResult([], "trained with the first rank, which writes the encoder")
    network, diagnosis = training.final_network(), training.diagnose()
    trained = TrainingSummary(
        study=study.name,
        objective=study.objective.name,
        steps=study.training.steps,
        volumes=len(entries),
        subjects=len({e.subject or e.id for e in entries}),
        modalities=tuple(sorted({e.modality for e in entries})),
        ranks=world.world_size,
        **asdict(training.compute),
        diagnosis=diagnosis.name,
        **started,
    )
    training_summary = trained.model_dump(mode="json", exclude_defaults=True)
    bundle = out / layout.ENCODER_FOLDER
    write_bundle(study, bundle, network, training_summary, {entry.id for entry in entries})
    images = write_feature_pca(network.encoder, training.sampler, out / snapshots.FEATURE_PCA_FILE)
    folder = str(meant.folder.relative_to(out))
    salt = read_salt_fingerprint(layout.inventory_table(study))
    inherited = study.init_from.read_training_subjects() if study.init_from else None
    subjects = training_subjects.write(
        bundle, meant.lineage_volumes, catalog.entries, salt, inherited
    )
    write_record(out / RUN_RECORD, RunRecord(folder=folder, salt=salt, **dict(trained)))
    # Not its README, in which its owner writes a licence.
    encoder_files = [bundle / name for name in (*read_manifest(bundle).files, BUNDLE_MANIFEST)]
    summary = (
        f"{study.training.steps} steps on {len(entries)} volumes, encoder in {bundle}; "
        f"{diagnosis.name}: {diagnosis.reason}"
    )
    # The reason holds rates, which no two runs share: hashed files name the diagnosis alone.
    recorded = {**training_summary, "reason": diagnosis.reason, **_earlier_computes(training)}
    files = [*encoder_files, subjects, images, out / RUN_RECORD]
    return StageResult(files, summary, {"training_summary": recorded})


def _earlier_computes(training: "Trainer") -> dict[str, Any]:
    """Devices and threads of earlier parts of a run that had others, for its provenance."""
    earlier = {step: asdict(each) for step, each in training.earlier_computes.items()}
    return {"computed_before_step": earlier} if earlier else {}


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """Weights, optimizer and activations; seconds by the rate of an earlier run."""
    training, each = study.training, training_cost(study.objective, study.model, study.views)
    steps = training.steps - training.first_step
    kept = min(training.keep_checkpoints, math.ceil(steps / training.checkpoint_every))
    disk = kept * cost.checkpoint_bytes(each, training) + cost.log_bytes(training, study.monitoring)
    images = min(snapshots.IMAGES_PER_RUN, math.ceil(steps / study.monitoring.snapshot_every))
    model, crop = study.model, study.views.crop_voxels
    bundle = model.parameter_count + math.prod(crop) + model.token_count(crop) * model.width
    bundle += study.objective.trains_decoder * unet_size(model, crop).parameter_count
    disk += 4 * bundle
    share = training.batch_size / hardware.processes / training.gradient_accumulation
    blocks = cost.read_ahead_bytes(
        training.batch_size / hardware.processes, study.views, training, study.monitoring
    )
    layers = f"{each.parameter_count / 1e6:.3g} million parameters, {share:.3g} samples at once"
    return ResourceEstimate(
        disk=counted(disk + IMAGES_BYTES, f"{kept} checkpoints"),
        files=counted(
            RECORD_FILE_COUNT + 10 + 2 * kept + images, f"{kept} checkpoints, encoder, metrics"
        ),
        memory=assumed(cost.host_bytes(each, share, hardware.gpus > 0) + blocks, layers),
        seconds=_estimate_seconds(study, each, hardware.gpus > 0),
        gpu_memory=assumed(cost.gpu_bytes(each, share, training), layers)
        if hardware.gpus
        else None,
    )


def _estimate_seconds(study: Study, sample_cost: TrainingCost, has_gpu: bool) -> Quantity:
    """By the median rate of the newest run of this model and crop, else by FLOPs."""
    samples = (study.training.steps - study.training.first_step) * study.training.batch_size
    out, manifest = study.stage_folder("pretrain", {}), study.encoder / BUNDLE_MANIFEST
    done = read_run_record(out)
    card = read_json_if_whole(parse_object, manifest) or {}
    if done and {"model", "crop_voxels"} <= card.keys():
        same = card["model"] == study.model.model_dump(mode="json")
        same &= card["crop_voxels"] == list(study.views.crop_voxels)
        same &= done.objective == study.objective.name
        rows = read_metrics(layout.metrics_log(out / done.folder))
        if same and rows and (done.device != "cpu") == has_gpu:
            rate = statistics.median(row["samples_per_s"] for row in rows)
            workers = done.ranks if has_gpu else done.ranks * done.threads
            return measured(samples * workers / rate, f"{rate:.3g} samples/s in {done.folder}")
    rate = cost.samples_per_s(sample_cost, has_gpu)
    where = "one H100, as fast as it is fed" if has_gpu else "a core with AVX-512"
    return assumed(samples / rate, f"{rate:.3g} samples/s on {where}")


def write_bundle(
    study: Study,
    folder: Path,
    network: "PretrainedNetwork",
    training_summary: dict[str, Any],
    scan_ids: Container[str] | None = None,
) -> None:
    """Write a network with all that the study says of it, and of the raw scans that it is for.

    These are the scans that it was trained on, or all that were accepted where it was not.
    """
    from ssl_pipeline.export.bundle import save_bundle

    scans = Inventory.read(layout.inventory_table(study)).accepted_scans
    chosen = [scan for scan in scans if scan_ids is None or scan.id in scan_ids]
    save_bundle(
        *(folder, network.encoder, study.model, study.preprocess, study.views.crop_voxels),
        training_summary,
        quality=study.quality,
        stored_values=stored_values_of(chosen),
        decoder=network.decoder,
    )


def random_encoder(study: Study, seed: int) -> "Encoder":
    """The same architecture with random weights: the baseline of every evaluation."""
    from ssl_pipeline.models.encoder import random_encoder as build

    return build(study.model, seed)


def build_trainer(
    meant: PretrainingRun, catalog: Catalog, entries: list[Entry], world: RankInfo
) -> tuple["Trainer", dict[str, str]]:
    """The trainer, and what the run starts from, in sentences for its record."""
    from ssl_pipeline.training.loop import RunSettings, Trainer

    study = meant.study
    encoder, started = random_encoder(study, study.seed), {}
    if study.init_from:
        from ssl_pipeline.init_from.transfer import load_pretrained

        found, source = study.init_from.read(), study.init_from.description
        started["init_from"] = load_pretrained(encoder, found, source)
    if meant.parent:
        started["continue_from"] = _continuation_note(study, meant.parent)
    if world.is_first:
        for sentence in started.values():
            info(sentence)
    keys = ("seed", "preprocess", "views", "model", "objective")
    others = {key: study.redacted_config[key] for key in keys}
    run = Trainer(
        meant.folder,
        build_objective(encoder, study),
        build_sampler(
            *(study, catalog, entries, study.training.batch_size),
            replay_mix(meant, catalog, entries, partial(_parent_encoder, meant)),
        ),
        RunSettings(study.training, study.monitoring, others),
        rank_info=world,
        initial_state=partial(_final_state, study, meant.parent) if meant.parent else None,
    )
    if world.is_first and (before := run.earlier_computes.get(run.step)):
        info(
            f"pretrain: goes on from step {run.step} with {run.compute.threads} threads on "
            f"{run.compute.device}, before {before.threads} on {before.device}: the result is the "
            "same but for rounding."
        )
    return run, started


def build_objective(encoder: "Encoder", study: Study) -> "Objective":
    """The objective of the study, its heads initialized from the study's seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.seed)
        return study.objective.build(encoder)


def build_sampler(
    study: Study,
    catalog: Catalog,
    entries: list[Entry],
    batch_size: int,
    replay: "ReplayMix | None" = None,
) -> "Sampler":
    """The sampler of `batch_size` samples a step from these volumes."""
    from ssl_pipeline.views.sampler import Sampler

    return Sampler(
        entries,
        preprocess.crop_reader(study, catalog, entries),
        study.views,
        study.model.patch_voxels,
        batch_size=batch_size,
        seed=study.seed,
        metadata_features=study.objective.metadata_features(entries),
        replay=replay,
    )


def _parent_encoder(run: PretrainingRun) -> "Encoder":
    """The encoder at the end of the run that this one continues."""
    study = run.study
    assert run.parent
    objective = build_objective(random_encoder(study, study.seed), study)
    objective.load_state_dict(_final_state(study, run.parent).objective)
    return objective.eval().encoder


def _final_state(study: Study, parent: PretrainingRun) -> "TrainerState":
    """The final state of the run to continue from. Raises UserError where it has not ended."""
    from ssl_pipeline.training.checkpoint import load_newest

    state = load_newest(layout.checkpoints_folder(parent.folder))
    if state is None:
        raise missing_parent_error(study, "has left no checkpoint here")
    if state.step < study.training.first_step:
        raise missing_parent_error(study, f"has come to step {state.step} only")
    # The embeddings are of a bank without the scans that came.
    return replace(state, previous_embeddings=None, earlier_computes={})


def _continuation_note(study: Study, parent: PretrainingRun) -> str:
    """What a run continues from, in words."""
    base = study.training.continue_from
    assert base
    return (
        f"continue_from: goes on to step {study.training.steps} on cohort {study.training.cohort} "
        f"from the end of the run of {base.steps} steps on cohort {base.cohort} "
        f"({parent.folder.name})."
    )


def _report_pending_scans(cohort: Cohort, catalog: Catalog) -> None:
    """Report scans that came, went or changed since the cohort was frozen."""
    frozen = cohort.checksums
    new_weights = {e.id: e.weight for e in catalog.entries}
    now = {e.id: e.sha256 for e in catalog.entries if e.split in ("train", "")}
    counts = {
        "new volumes wait": len(now.keys() - frozen.keys()),
        "of its volumes are gone": len(frozen.keys() - now.keys()),
        "of its volumes have changed": sum(now.get(n, sha) != sha for n, sha in frozen.items()),
        "of its volumes are weighted otherwise": sum(
            new_weights.get(volume.id, volume.weight) != volume.weight for volume in cohort.volumes
        ),
    }
    for what, count in counts.items():
        if count:
            remedy = "raise training.cohort to train on all, anew or by training.continue_from"
            info(f"pretrain: {count} {what}; {remedy}.")
