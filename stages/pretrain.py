"""Pretrain the encoder on the training subjects' volumes.

It starts from random weights, from those that `init_from` names, or where a finished run ended
(`training.continue_from`). `core/pretraining_runs.py` decides which run a study
means, and on which volumes.

It is the one stage that several ranks may run; the first of them writes all files.
"""

import math
from collections.abc import Container
from dataclasses import asdict
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
from ssl_pipeline.io.records import write_record
from ssl_pipeline.models.unet_config import unet_size
from ssl_pipeline.objectives.cost import training_cost
from ssl_pipeline.progress import info
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.training import cost, snapshots
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.metrics_log import METRICS_FILE
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.training.run_record import (
    RUN_RECORD,
    RunRecord,
    TrainingSummary,
)
from ssl_pipeline.training.time_budget import TIME_BUDGET_FILE
from ssl_pipeline.volumes.inventory import Inventory, read_salt_fingerprint
from stages.core import layout
from stages.core.initial_weights import freeze_initial_weights
from stages.core.pretraining_runs import (
    HASHED_KEYS,
    Cohort,
    freeze_cohort,
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
from stages.core.training_rate import calibration_source, exact_calibration, samples_per_s
from stages.core.unfinished_runs import report_unfinished_runs
from stages.criteria import fix_criteria
from stages.evaluation_check import check_evaluations
from stages.trainer import build_trainer

if TYPE_CHECKING:
    from ssl_pipeline.models.unet_decoder import PretrainedNetwork
    from ssl_pipeline.training.loop import Trainer

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
    f"{RUN_PATTERN}/{TIME_BUDGET_FILE}",
    f"{RUN_PATTERN}/{layout.MEASURED_FOLDER}/**/*",
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
    trainer, started = build_trainer(meant, catalog, entries, world)
    trainer.train()
    if not world.is_first:
        return StageResult([], "trained with the first rank, which writes the encoder")
    network, diagnosis = trainer.final_network(), trainer.diagnose()
    trained = _training_summary(study, trainer, entries, diagnosis.name, started)
    training_summary = trained.model_dump(mode="json", exclude_defaults=True)
    bundle = out / layout.ENCODER_FOLDER
    write_bundle(study, bundle, network, training_summary, {entry.id for entry in entries})
    images = write_feature_pca(network.encoder, trainer.sampler, out / snapshots.FEATURE_PCA_FILE)
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
        f"{trainer.training.steps} steps on {len(entries)} volumes, encoder in {bundle}; "
        f"{diagnosis.name}: {diagnosis.reason}"
    )
    # The reason holds rates, which no two runs share: hashed files name the diagnosis alone.
    recorded = {**training_summary, "reason": diagnosis.reason, **_earlier_computes(trainer)}
    files = [*encoder_files, subjects, images, out / RUN_RECORD]
    return StageResult(files, summary, {"training_summary": recorded})


def _training_summary(
    study: Study,
    trainer: "Trainer",
    entries: list[Entry],
    diagnosis: str,
    started: dict[str, str],
) -> TrainingSummary:
    return TrainingSummary(
        study=study.name,
        objective=study.objective.name,
        steps=trainer.training.steps,
        hours=study.training.hours,
        volumes=len(entries),
        subjects=len({e.subject or e.id for e in entries}),
        modalities=tuple(sorted({e.modality for e in entries})),
        ranks=trainer.rank_info.world_size,
        **asdict(trainer.compute),
        diagnosis=diagnosis,
        **started,
    )


def _earlier_computes(trainer: "Trainer") -> dict[str, Any]:
    """Devices and threads of earlier parts of a run that had others, for its provenance."""
    earlier = {step: asdict(each) for step, each in trainer.earlier_computes.items()}
    return {"computed_before_step": earlier} if earlier else {}


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """Weights, optimizer and activations; seconds by the rate of an earlier run."""
    each = training_cost(study.objective, study.model, study.views)
    rate = samples_per_s(study, each, hardware.gpus > 0)
    training = _expected_training(study, rate.value * (hardware.gpus or hardware.cores))
    steps = training.added_steps
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
    files = RECORD_FILE_COUNT + 10 + 2 * kept + images + bool(training.hours)
    memory = assumed(cost.host_bytes(each, share, hardware.gpus > 0) + blocks, layers)
    gpu_memory = assumed(cost.gpu_bytes(each, share, training), layers) if hardware.gpus else None
    if there := exact_calibration(study, hardware.gpus > 0, hardware.processes):
        memory = measured(there.memory_bytes, calibration_source(there))
        gpu_memory = gpu_memory and measured(there.gpu_memory_bytes, calibration_source(there))
    return ResourceEstimate(
        disk=counted(disk + IMAGES_BYTES, f"{kept} checkpoints"),
        files=counted(files, f"{kept} checkpoints, encoder, metrics"),
        memory=memory,
        seconds=_seconds(training, rate, hardware),
        gpu_memory=gpu_memory,
    )


def _expected_training(study: Study, samples_per_s: float) -> Training:
    """The settings with the steps that hours would be at this rate, where they are given."""
    training, parent = study.training, study.training.continue_from
    rate = 3600 * samples_per_s / training.batch_size
    before = parent.steps or round(rate * (parent.hours or 0)) if parent else 0
    added = max(1, round(rate * (training.added_hours or 0)))
    return training.with_steps(training.steps or before + added, before)


def _seconds(training: Training, rate: Quantity, hardware: Hardware) -> Quantity:
    """Seconds of one GPU or core: those that are given, else by the rate of one."""
    if training.added_hours:
        given = training.added_hours * 3600 * (hardware.gpus or hardware.cores)
        return counted(given, f"training.hours; about {training.steps} steps, {rate.basis}")
    return Quantity(training.added_steps * training.batch_size / rate.value, rate.basis)


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
