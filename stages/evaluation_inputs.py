"""Inputs, context and results of evaluation stages: probe, finetune and robustness."""

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from ssl_pipeline.evaluation.cells import (
    PIXELS,
    RANDOM,
    UNSHARDED,
    CellShard,
    files_of_other_encoders,
)
from ssl_pipeline.evaluation.config import Finetune, Probe
from ssl_pipeline.evaluation.cost_model import EvaluatedTask, EvaluationCost
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.records import COSTS_FILE, RESULTS_FILE, Results, read_results
from ssl_pipeline.evaluation.runner.access_log import ACCESS_LOG, read_test_accesses
from ssl_pipeline.evaluation.runner.context import EvaluationContext
from ssl_pipeline.evaluation.runner.subject_splits import calibration_entries, split_subjects
from ssl_pipeline.evaluation.tasks.cost import CostInputs
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.export.manifest import WEIGHTS_FILE, weights_hash
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import sha256_file, sha256_json
from ssl_pipeline.store.catalog import Catalog, ScanRow
from ssl_pipeline.training.cost import CORE_FLOPS, CUDA_BYTES, CUDA_HOST_BYTES, GPU_FLOPS
from stages import leakage, preprocess
from stages.core import layout
from stages.core.locate import redact
from stages.core.records import manifest_hash
from stages.core.resources import DatasetSize, Hardware, ResourceEstimate, assumed
from stages.core.stage import StageResult, stage_names
from stages.core.study import Study
from stages.criteria import fix_criteria
from stages.evaluation_check import check_external_encoders
from stages.scan_features import task_features
from stages.trainer import random_encoder

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_pipeline.export.bundle import LoadedEncoder
    from ssl_pipeline.models.encoder import Encoder

CellSettings = TypeVar("CellSettings", Probe, Finetune)  # the section of a stage of cells

NETWORK_FILES = "networks/*.safetensors"
OUTPUTS = (
    RESULTS_FILE,
    COSTS_FILE,
    ACCESS_LOG,
    "cells/*.json",
    f"{layout.LABEL_MAPS_FOLDER}/*.npy",
    NETWORK_FILES,
    "predictions/*/*.nii.gz",
)


def inputs(study: Study, task: str) -> dict[str, str]:
    """Stored volumes, encoders, and the label files that the task's scans name."""
    found = {"preprocess": manifest_hash(study, "preprocess"), **_encoder_hashes(study)}
    label_file = study.pseudonyms.label_path
    labels = [each.name for each in study.tasks[task].truth_names() if each.kind == "label"]
    for entry in _catalog(study).entries:
        for name in filter(entry.labels.get, labels):
            found[f"{name} {entry.id}"] = _label_hash(label_file(entry.id, name))
    return found


def _encoder_hashes(study: Study) -> dict[str, str]:
    """Hashes of the encoders: the own one, and external ones with their training subjects."""
    own = {"pretrain": manifest_hash(study, "pretrain")} if study.has_pretraining else {}
    return own | study.external_encoder_hashes


def _label_hash(label: Path) -> str:
    """A label file's content; small files, so that they are simply read."""
    return sha256_file(label) if label.is_file() else "a folder"


def evaluation_context(study: Study, stage: str, out: Path, task: str) -> EvaluationContext:
    """The context of an evaluation. Raises UserError where its subjects were pretrained on."""
    catalog = _catalog(study)
    check_external_encoders(study)
    config, scored = study.tasks[task], study.evaluate.split
    entries = (
        *split_subjects(config, catalog.entries, scored).entries,
        *calibration_entries(config, catalog.entries, scored),
    )
    encoders = _EncoderLoader(study)
    features = task_features(study, task, catalog.entries) if stage == "probe" else {}
    return EvaluationContext(
        catalog=catalog,
        reader=preprocess.crop_reader(study, catalog, entries),
        label_file=study.pseudonyms.label_path,
        evaluate=study.evaluate,
        encoder_factory=encoders,
        decoder_weights=encoders.decoder_weights,
        initializations=initializations(study, features),
        scan_features=features,
        crop_voxels=study.views.crop_voxels,
        out=out,
        label_map_folder=study.folder / stage / task / layout.LABEL_MAPS_FOLDER,  # of all trials
        device=evaluation_device(study),
        seed=study.seed,
        warning=leakage.leakage_warning(study, catalog.entries, study.encoders),
        redact=partial(redact, study),
        baseline_probe=_linear_probe(study, task),
        access_folder=study.pseudonyms.private_folder,
        access_scope=f"{stage}@{study.trial}" if study.trial else stage,
    )


def _linear_probe(study: Study, task: str) -> Linear:
    """The linear probe of the task, so that a baseline has one score wherever it is shown."""
    methods = study.probe_of(task).methods
    return next((method for method in methods if isinstance(method, Linear)), Linear())


def initializations(study: Study, features: Iterable[str] = ()) -> dict[str, str]:
    """The initializations to compare, with the hash of their weights; encoders that exist alone.

    `features` are the names of those that are vectors of scans, whose file has the hash.
    """
    bundles = study.encoders.items()
    found = {
        name: weights_hash(bundle) for name, bundle in bundles if (bundle / WEIGHTS_FILE).exists()
    }
    known = {RANDOM: sha256_json(study.model.model_dump(mode="json")), PIXELS: ""}
    hashes = study.feature_hashes
    found |= {name: hashes[f"features {name}"] for name in features}
    return found | {name: known[name] for name in study.baselines}


def cost_inputs(dataset: DatasetSize, study: Study, task: str) -> CostInputs:
    """Numbers and sizes of a task's scans, from the tables or the headers."""
    config = study.tasks[task]
    truths = [truth for truth in config.truth_names() if truth.is_required]
    usable = [
        scan
        for scan in dataset.scans
        if (not config.roots or scan.root in config.roots)
        and all(truth.find_in(scan).get(truth.name) for truth in truths)
    ]
    train, test, val = (
        _used(config, [scan for scan in usable if scan.split == split])
        for split in ("train", study.evaluate.split, "val")
    )
    held_out = val if config.CLASSIFIED and study.evaluate.split != "val" else []
    raw_voxels = [dataset.sizes[scan.id].source_voxels for scan in test]
    return CostInputs(
        initializations=(*study.encoders, *study.baselines),
        scan_features=len(study.features_of(task)),
        writes_label_maps=not study.trial,
        train_subjects=max(1, len({scan.subject for scan in train})),
        train_scans=len(train),
        test_scans=len(test),
        voxels=tuple(dataset.sizes[scan.id].stored_voxels for scan in (*train, *test)),
        test_voxels=math.fsum(dataset.sizes[scan.id].stored_voxels for scan in test),
        raw_test_voxels=sum(raw_voxels),
        largest_test_scan=max(raw_voxels, default=0),
        calibration_subjects=len({scan.subject for scan in held_out}),
        calibration_voxels=math.fsum(dataset.sizes[scan.id].stored_voxels for scan in held_out),
    )


def _used(task: Task, scans: list[ScanRow]) -> list[ScanRow]:
    """Those of a split that the task uses; before the inventory, which has the metadata, all."""
    return list(filter(task.uses, scans)) or scans


def evaluated_task(dataset: DatasetSize, study: Study, task: str) -> EvaluatedTask:
    """A task with the settings that it is evaluated with, for the cost model."""
    config = study.tasks[task]
    return EvaluatedTask(
        config,
        study.probe_of(task),
        study.finetune_of(task),
        study.evaluate,
        study.model,
        config.crop_size(study.views.crop_voxels),
        cost_inputs(dataset, study, task),
    )


def resource_estimate(
    cost: EvaluationCost, dataset: DatasetSize, has_gpu: bool
) -> ResourceEstimate:
    """The resource estimate of an evaluation."""
    flops = GPU_FLOPS if has_gpu else CORE_FLOPS
    speed = f"{flops / 1e9:.0f} GFLOP/s on {'one H100' if has_gpu else 'a core with AVX-512'}"
    host = CUDA_HOST_BYTES if has_gpu else 0
    return ResourceEstimate(
        disk=assumed(cost.disk_bytes, "predictions, and labels on the stored grid"),
        files=dataset.quantity_from_scans(
            cost.files, "one for each cell, label map and predicted segmentation"
        ),
        memory=assumed(cost.memory_bytes + host, "one batch and the largest volume"),
        seconds=assumed(
            cost.flops / flops + cost.seconds, "; ".join(filter(None, [cost.work, speed]))
        ),
        gpu_memory=assumed(CUDA_BYTES + cost.memory_bytes, "one batch") if has_gpu else None,
    )


@dataclass(frozen=True)
class CellStage(Generic[CellSettings]):
    """What the stages that compute cells share: `probe` and `finetune`.

    Its methods are those of the stage's module; see `stages.core.runner`.
    """

    name: str
    settings_of: Callable[[Study, str], CellSettings]  # for a task
    run_task: Callable[[Task, CellSettings, EvaluationContext], Results | None]
    cost_of: Callable[[EvaluatedTask], EvaluationCost]

    def estimate_resources(
        self, study: Study, dataset: DatasetSize, hardware: Hardware, task: str
    ) -> ResourceEstimate:
        """Every cell of the task."""
        cost = self.cost_of(evaluated_task(dataset, study, task))
        return resource_estimate(cost, dataset, hardware.gpus > 0)

    def run(self, study: Study, out: Path, task: str) -> StageResult:
        """Compute the missing cells, and the table of all."""
        self.run_cells(study, out, UNSHARDED, task)
        return stage_result(out)

    def run_shard(self, study: Study, out: Path, shard: CellShard, task: str) -> None:
        """Compute a shard of the missing cells."""
        self.run_cells(study, out, shard, task)

    def run_cells(self, study: Study, out: Path, shard: CellShard, task: str) -> EvaluationContext:
        """Compute a shard of the missing cells; returns the context that they were computed in."""
        fix_criteria(study)  # before there are results
        context = replace(evaluation_context(study, self.name, out, task), shard=shard)
        self.run_task(study.tasks[task], self.settings_of(study, task), context)
        return context


def stage_result(out: Path) -> StageResult:
    """The stage result of a finished evaluation: its table and a sentence."""
    results = read_results(out)
    failed = len(results.failed)
    summary = (
        f"{results.task}: {format_count(results.n_test_subjects, 'subject')} scored, "
        f"{format_count(len(results.rows), 'row')}"
    )
    if failed:
        summary += (
            f"; {format_count(failed, 'cell')} failed, such as {results.failed[0].reason}: "
            "run the same command again, which computes what failed alone"
        )
    networks = sorted(out.glob(NETWORK_FILES))
    return StageResult(
        [out / RESULTS_FILE],
        summary,
        {"test_access": access_records(out)},
        indexed_files=networks,
        n_failed=failed,
    )


def access_records(out: Path) -> list[dict[str, str]]:
    """The test-set accesses of a task, as provenance holds them."""
    return [access.model_dump() for access in read_test_accesses(out)]


def stale_cell_files(study: Study) -> list[Path]:
    """Files of cells that were computed with other encoders than the present ones."""
    present = initializations(study, study.evaluate.features)
    if not (present.keys() >= study.encoders.keys() and all(study.feature_hashes.values())):
        return []
    folders = (study.stage_folder(name, {}) for name in stage_names(lambda stage: stage.SHARDED))
    tasks = (out for folder in folders for out in folder.glob("*"))
    return [path for out in tasks for path in files_of_other_encoders(out, present.values())]


class _EncoderLoader:
    """Fresh copies of a trained encoder, or of its architecture with random weights."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.cache: dict[str, LoadedEncoder] = {}  # loaded, and self-tested, once

    def __call__(self, initialization: str, seed: int) -> "Encoder":
        if initialization == RANDOM:
            return random_encoder(self.study, seed)
        return deepcopy(self._load(initialization).model)

    def decoder_weights(self, initialization: str) -> "Mapping[str, Tensor] | None":
        """The tensors of the decoder that was trained along with an encoder, if one was."""
        return self._load(initialization).decoder

    def _load(self, initialization: str) -> "LoadedEncoder":
        if initialization not in self.cache:
            from ssl_pipeline.export.bundle import load_encoder

            self.cache[initialization] = load_encoder(self.study.encoders[initialization])
        return self.cache[initialization]


def _catalog(study: Study) -> Catalog:
    return Catalog.read(layout.catalog_table(study))


def evaluation_device(study: Study) -> str:
    """Where a study's networks are evaluated: on a GPU, unless there is none or it says cpu."""
    import torch

    return "cuda" if study.training.device != "cpu" and torch.cuda.is_available() else "cpu"
