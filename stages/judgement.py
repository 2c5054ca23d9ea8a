"""What probing and fine-tuning share: the encoder, the task's scans, and who may not be scored."""

import math
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_pipeline.atomic import sha256_file, sha256_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import PIXELS, RANDOM, of_other_encoders
from ssl_pipeline.evaluation.cohort import cohort
from ssl_pipeline.evaluation.looks import LOOKS, read_looks
from ssl_pipeline.evaluation.plan import Setting
from ssl_pipeline.evaluation.size import Cost, Judged
from ssl_pipeline.export import trained_on
from ssl_pipeline.export.card import CARD, WEIGHTS, read_card
from ssl_pipeline.report.numerals import count
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training.size import CORE_FLOPS, CUDA_BYTES, CUDA_HOST_BYTES, GPU_FLOPS
from stages import leakage, preprocess
from stages.contract import Made, manifest_hash
from stages.need import Known, Need, assumed
from stages.pretrain import random_encoder
from stages.study import Study
from stages.where import concealed

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder


MAKES = (
    "results.json",
    "costs.json",
    LOOKS,
    "cells/*.json",
    "labels/*.npy",
    "networks/*.safetensors",
    "predictions/*/*.nii.gz",
)


def inputs(study: Study, task: str) -> dict[str, str]:
    """Stored volumes, encoders, and the label files that the task's scans name."""
    found = {"preprocess": manifest_hash(study, "preprocess"), **_encoders(study)}
    config, label_file = study.tasks[task], study.origins.label
    asked = [getattr(config, key, None) for key in ("label", "given")]
    for entry in _catalog(study).entries:
        for name in (name for name in asked if name and entry.labels.get(name)):
            found[f"{name} {entry.id}"] = _stamp(label_file(entry.id, name))
    return found


def _encoders(study: Study) -> dict[str, str]:
    """What pretraining made, and the encoders that the study names, with whom they have seen."""
    found = {"pretrain": manifest_hash(study, "pretrain")} if study.pretrains else {}
    for name, bundle in study.others.items():
        paths = [bundle / file for file in (WEIGHTS, CARD, trained_on.NAME)]
        hashes = [path.exists() and sha256_file(path) for path in paths]
        found[f"encoder {name}"] = sha256_json(hashes)
    return found


def _stamp(label: Path) -> str:
    """A label file's content; small files, so that they are simply read."""
    return sha256_file(label) if label.is_file() else "a folder"


def setting(study: Study, stage: str, out: Path, task: str) -> Setting:
    """All that an evaluation works on. UserError where a scored subject was pretrained on."""
    catalog = _catalog(study)
    for name, bundle in study.others.items():
        _refuse_other_contract(study, name, bundle)
    entries = cohort(study.tasks[task], catalog, study.evaluate.split).entries
    return Setting(
        catalog=catalog,
        reader=preprocess.reader(study, catalog, entries),
        label_file=study.origins.label,
        evaluate=study.evaluate,
        encoder_of=_Encoders(study),
        starts=starts(study),
        crop_voxels=study.views.crop_voxels,
        out=out,
        labels=study.folder / stage / task / "labels",  # which all trials share
        device=_device(study),
        seed=study.seed,
        warning=leakage.warning(study, catalog),
        conceal=partial(concealed, study),
    )


def starts(study: Study) -> dict[str, str]:
    """What is compared, with the hash that tells its weights; encoders whose bundle is there."""
    weights = {name: bundle / WEIGHTS for name, bundle in study.encoders.items()}
    found = {name: sha256_file(path) for name, path in weights.items() if path.exists()}
    known = {RANDOM: sha256_json(study.model.model_dump(mode="json")), PIXELS: ""}
    return found | {name: known[name] for name in study.untrained}


def judged(known: Known, study: Study, task: str) -> Judged:
    """The numbers of a task's scans, as the tables or the headers have them."""
    config = study.tasks[task]
    words = [(getattr(config, kind, None), f"{kind}s") for kind in ("label", "target")]
    usable = [
        scan
        for scan in known.scans
        if (not config.roots or scan.root in config.roots)
        and all(getattr(scan, where).get(word) for word, where in words if word)
    ]
    everyone = [scan for scan in usable if scan.split == "train"]
    # Before the inventory nobody knows what is said of a scan: then all are counted.
    train = list(filter(config.may_learn_from, everyone)) or everyone
    test = [scan for scan in usable if scan.split == study.evaluate.split]
    return Judged(
        starts=(*study.encoders, *study.untrained),
        keeps_labels=not study.trial,
        train_subjects=max(1, len({scan.subject for scan in train})),
        train_scans=len(train),
        test_scans=len(test),
        voxels=tuple(known.sizes[scan.id].stored for scan in (*train, *test)),
        test_voxels=math.fsum(known.sizes[scan.id].stored for scan in test),
        raw_test_voxels=sum(known.sizes[scan.id].read for scan in test),
    )


def need_of(cost: Cost, known: Known, gpu: bool) -> Need:
    """The figures of a judgement."""
    flops = GPU_FLOPS if gpu else CORE_FLOPS
    where = "one H100" if gpu else "a core with AVX-512"
    host = CUDA_HOST_BYTES if gpu else 0
    return Need(
        disk=assumed(cost.bytes, "predictions, and labels on the stored grid"),
        files=known.count(cost.files, "one a cell, label map and prediction of voxels"),
        memory=assumed(cost.memory_bytes + host, "one batch and the largest volume"),
        seconds=assumed(cost.flops / flops + cost.seconds, f"{flops / 1e9:.0f} GFLOP/s on {where}"),
        gpu_memory=assumed(CUDA_BYTES + cost.memory_bytes, "one batch") if gpu else None,
    )


def made(out: Path, results: dict[str, Any]) -> Made:
    """The table and the sentence of a finished judgement."""
    failed = len(results["failed"])
    summary = (
        f"{results['task']}: {count(results['n_test_subjects'], 'subject')} scored, "
        f"{count(len(results['rows']), 'row')}"
    )
    if failed:
        summary += (
            f"; {count(failed, 'cell')} failed, such as {results['failed'][0]['reason']}: run the "
            "same command again, which computes what failed alone"
        )
    networks = sorted(out.glob("networks/*.safetensors"))
    looks = {"looks": read_looks(out)}
    return Made([out / "results.json"], summary, looks, listed=networks, failed=failed)


def stale_cells(study: Study) -> list[Path]:
    """Files of the cells that the present encoders will have computed again."""
    present = starts(study)
    if not present.keys() >= study.encoders.keys():
        return []
    judged = (study.stage_folder(name, {}) for name in ("probe", "finetune"))
    tasks = (out for folder in judged for out in folder.glob("*"))
    return [path for out in tasks for path in of_other_encoders(out, present.values())]


class _Encoders:
    """Fresh copies of a trained encoder, or of its architecture with random weights."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.loaded: dict[str, Encoder] = {}  # read, and proven, once

    def __call__(self, init: str, seed: int) -> "Encoder":
        if init == RANDOM:
            return random_encoder(self.study, seed)
        if init not in self.loaded:
            from ssl_pipeline.export.bundle import load_encoder

            self.loaded[init] = load_encoder(self.study.encoders[init]).model
        return deepcopy(self.loaded[init])


def _catalog(study: Study) -> Catalog:
    return Catalog.read(study.folder / "preprocess" / "catalog.parquet")


def _refuse_other_contract(study: Study, name: str, bundle: Path) -> None:
    """An encoder must see volumes as it was trained on, and random weights be of its kind."""
    card = read_card(bundle)
    for key, trained_with, own in (
        ("model", card.model, study.model),
        ("preprocess", card.preprocess, study.preprocess),
    ):
        if trained_with != own:
            raise UserError(
                f"evaluate.encoders.{name} was trained with another `{key}` than this study's: "
                f"write here what {bundle / CARD} says."
            )


def _device(study: Study) -> str:
    import torch

    return "cuda" if study.training.device != "cpu" and torch.cuda.is_available() else "cpu"
