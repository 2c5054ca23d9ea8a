"""What probing and fine-tuning share: the encoder, the task's scans, and who may not be scored."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssl_pipeline.atomic import read_json, sha256_file
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import of_other_encoders
from ssl_pipeline.evaluation.cohort import cohort
from ssl_pipeline.evaluation.plan import Setting
from ssl_pipeline.report.numerals import count
from ssl_pipeline.store.catalog import Catalog
from stages import preprocess
from stages.contract import Made, manifest_hash
from stages.pretrain import random_encoder
from stages.study import Study

if TYPE_CHECKING:
    from ssl_pipeline.models.vit import ViTEncoder


MAKES = ("results.json", "costs.json", "cells/*.json", "labels/*.npy", "predictions/*/*.nii.gz")


def inputs(study: Study, task: str) -> dict[str, str]:
    """Stored volumes, encoder, and the label files that the task's scans name."""
    found = {name: manifest_hash(study, name) for name in ("preprocess", "pretrain")}
    label = getattr(study.tasks[task], "label", "")
    for entry in _catalog(study).entries:
        path = entry.labels.get(label, "")
        if path:
            found[f"label {entry.id}"] = _stamp(Path(path))
    return found


def _stamp(label: Path) -> str:
    """A label file's content; small files, so that they are simply read."""
    return sha256_file(label) if label.is_file() else "a folder"


def setting(study: Study, out: Path, task: str) -> Setting:
    """All that an evaluation works on. UserError where a scored subject was pretrained on."""
    catalog = _catalog(study)
    _refuse_seen(study, catalog)
    encoder = study.folder / "pretrain" / "encoder"
    entries = cohort(study.tasks[task], catalog, study.evaluate.split).entries
    return Setting(
        catalog=catalog,
        reader=preprocess.reader(study, catalog, entries),
        evaluate=study.evaluate,
        encoder_of=_Encoders(study, encoder),
        encoder_hash=sha256_file(encoder / "encoder.safetensors"),
        crop_voxels=study.views.crop_voxels,
        out=out,
        device=_device(study),
        seed=study.seed,
    )


def made(out: Path, results: dict[str, Any]) -> Made:
    """The table and the sentence of a finished judgement."""
    scored = f"{count(results['n_test_subjects'], 'subject')} scored"
    return Made([out / "results.json"], f"{results['task']}: {scored}, {len(results['rows'])} rows")


def stale_cells(study: Study) -> list[Path]:
    """Files of the cells that the present encoder will have computed again."""
    weights = study.folder / "pretrain" / "encoder" / "encoder.safetensors"
    if not weights.exists():
        return []
    encoder = sha256_file(weights)
    tasks = (out for name in ("probe", "finetune") for out in study.folder.glob(f"{name}/*"))
    return [path for out in tasks for path in of_other_encoders(out, encoder)]


class _Encoders:
    """Fresh copies of the pretrained encoder, or of its architecture with random weights."""

    def __init__(self, study: Study, bundle: Path) -> None:
        self.study, self.bundle = study, bundle

    def __call__(self, init: Literal["pretrained", "random"], seed: int) -> "ViTEncoder":
        if init == "random":
            return random_encoder(self.study, seed)
        from ssl_pipeline.export.bundle import load_encoder

        return load_encoder(self.bundle).model


def _catalog(study: Study) -> Catalog:
    return Catalog.read(study.folder / "preprocess" / "catalog.parquet")


def _refuse_seen(study: Study, catalog: Catalog) -> None:
    """No subject may be scored that the encoder was pretrained on."""
    seen = set(read_json(study.folder / "pretrain" / "run.json")["seen"])
    leaked = {e.subject for e in catalog.entries if e.split == study.evaluate.split} & seen
    if leaked:
        raise UserError(
            f"{len(leaked)} subjects of the split {study.evaluate.split}, such as "
            f"{sorted(leaked)[0]}, were pretrained on: raise training.cohort to pretrain anew."
        )


def _device(study: Study) -> str:
    import torch

    return "cuda" if study.training.device != "cpu" and torch.cuda.is_available() else "cpu"
