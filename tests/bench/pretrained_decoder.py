"""What a decoder that pretraining has trained is worth to fine-tuning, on validation subjects.

`python -m tests.bench.pretrained_decoder` pretrains a small U-Net for a minute or two by each
objective, and fine-tunes it on five labelled subjects: from its encoder and decoder, from its
encoder alone, and from random weights, at the usual rates and at one rate for all layers. Every
figure is written to `build/bench/pretrained_decoder.jsonl` as it comes; half an hour of a core.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import torch

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.decoders.unet import UNet
from ssl_pipeline.models import ResEnc
from ssl_pipeline.models.unet_decoder import PretrainedNetwork
from ssl_pipeline.objectives import Custom
from ssl_pipeline.objectives.terms.dense_contrast import DenseContrast
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.loop import RunSettings, Trainer
from ssl_pipeline.views.config import Views
from stages.core import layout
from stages.core.study import Study
from stages.trainer import build_objective, build_sampler, random_encoder
from tests.bench.segmentation_task import Budget, SegmentationComparison, prepare_study

STUDY, TASK = Path("workflows/studies/openkbp_hippocampus.yaml"), "parts"
OUT, CROP, SEEDS = Path("build/bench"), (24, 32, 24), (0, 1)
OBJECTIVES = {
    "dense contrast": Custom(
        terms=(DenseContrast(decoder="unet", points_per_axis=7, negative_patches=1.0),)
    ),
    "reconstruction": Custom(terms=(Reconstruction(decoder="unet"),)),
}
RATES = {"defaults": {}, "2e-3 throughout": {"learning_rate": 2e-3, "head_lr_factor": 1.0}}


@dataclass(frozen=True)
class Start:
    """Where fine-tuning starts."""

    objective: str  # empty for random weights
    decoder: Literal["random", "pretrained"]


STARTS = (Start("", "random"), *(Start(o, d) for o in OBJECTIVES for d in ("pretrained", "random")))


def main() -> None:
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    whole = prepare_study(STUDY, TASK, _budget(0), OUT / "pretrained_decoder")
    study = whole.model_copy(
        update={
            "model": ResEnc(),
            "views": Views(crop_voxels=(24, 24, 24), visible_ratio=0.4),
            "training": Training(
                steps=400, batch_size=3, learning_rate=2e-3, precision="fp32", threads=1
            ),
        }
    )
    networks = {name: _pretrain(study, name) for name in OBJECTIVES}
    with open(OUT / "pretrained_decoder.jsonl", "w") as rows:
        for row in _rows(study, networks):
            rows.write(json.dumps(row) + "\n")
            rows.flush()
            print(row, flush=True)


def _budget(seed: int) -> Budget:
    return Budget(5, 250, 2, CROP, max_scored_scans=20, seed=seed)


def _pretrain(study: Study, name: str) -> PretrainedNetwork:
    """Encoder and decoder after a run of this objective, which goes on where it was cut."""
    chosen = study.model_copy(update={"objective": OBJECTIVES[name]})
    catalog = Catalog.read(layout.catalog_table(study))
    entries = [entry for entry in catalog.entries if entry.split == "train"]
    run = Trainer(
        study.folder / "pretrained_decoder" / name.replace(" ", "_"),
        build_objective(random_encoder(chosen, study.seed), chosen),
        build_sampler(chosen, catalog, entries, chosen.training.batch_size),
        RunSettings(chosen.training, chosen.monitoring),
    )
    run.train()
    return run.final_network()


def _rows(study: Study, networks: dict[str, PretrainedNetwork]) -> Iterator[dict[str, object]]:
    for seed, (rate, settings), start in product(SEEDS, RATES.items(), STARTS):
        finetune = Finetune(batch_size=2, decoder=UNet(start=start.decoder), **settings)
        task = SegmentationComparison(
            study.model_copy(update={"finetune": finetune}), TASK, _budget(seed)
        )
        if start.objective:
            task.start_from(networks[start.objective])
        network, _ = task.train(task.budget.steps)
        dice = round(task.mean_dice(task.predict(network)), 3)
        yield {
            "seed": seed,
            "rate": rate,
            "pretraining": start.objective or "none",
            "decoder": start.decoder,
            "dice": dice,
        }


if __name__ == "__main__":
    main()
