"""Count what a step of every arm of an ablation costs, and how many steps each may take.

All arms get the operations that the study's own objective takes in `training.steps`. A step is
counted as it is trained, forward and backward, on real crops.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ssl_pipeline.atomic import write_json
from ssl_pipeline.objectives import ObjectiveConfig
from ssl_pipeline.progress import progress
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training.world import World
from stages import pretrain
from stages.contract import Made, manifest_hash
from stages.need import RECORDS, Known, Need, Place, assumed, counted
from stages.study import Study
from stages.trials import BUDGET, refuse_none

if TYPE_CHECKING:
    from torch import Tensor, autocast

    from ssl_pipeline.views.blocks import Blocks

PAIRS = 8  # of a part: all terms but that between subjects, a thousandth, grow with their number
STEPS = 4  # whose mean is taken, for the number of matched places varies
BASE_BYTES = 1.5e9  # torch, and the activations of so few crops
READS = (*pretrain.READS, "ablate.arms")
AFTER = ("preprocess",)
VERSION = 1
MAKES = (BUDGET,)


def inputs(study: Study) -> dict[str, str]:
    """Stored volumes. Raises UserError where no objectives are compared."""
    refuse_none(study)
    return {"preprocess": manifest_hash(study, "preprocess")}


def need(study: Study, known: Known, on: Place) -> Need:
    """One small file."""
    return Need(
        disk=counted(1e3, "one small file"),
        files=counted(RECORDS + 1, "one small file"),
        memory=assumed(BASE_BYTES, "torch and a few crops"),
        seconds=assumed(20.0, "a few steps"),
    )


def run(study: Study, out: Path) -> Made:
    """Write the operations of a step and the steps of every arm."""
    assert study.ablate
    drawn = list(_batches(study))
    whole = _step_flops(study, study.objective, drawn) * study.training.steps
    arms = {}
    with progress("Counting operations", total=len(study.ablate.arms)) as bar:
        for name, objective in study.ablate.arms.items():
            flops = _step_flops(study, objective, drawn)
            arms[name] = {"step_flops": round(flops), "steps": max(1, round(whole / flops))}
            bar.advance(name)
    write_json(out / BUDGET, {"flops": round(whole), "arms": arms})
    steps = ", ".join(f"{arm['steps']} steps of {name}" for name, arm in arms.items())
    return Made([out / BUDGET], f"{whole:.3g} operations are {steps}")


def _batches(study: Study) -> Iterator[list["Blocks"]]:
    """A few steps' parts, of as many pairs as need to be counted."""
    catalog = Catalog.read(study.folder / "preprocess" / "catalog.parquet")
    entries, parts = pretrain.trained_on_now(study, catalog), study.training.accumulate
    pairs = parts * min(PAIRS, study.training.pairs // parts)
    sampler = pretrain.sampler(study, catalog, entries, pairs)
    for step in range(STEPS):
        yield [sampler.batch(step, part) for part in World().parts(pairs, parts)]


def _step_flops(study: Study, objective: ObjectiveConfig, drawn: Sequence[list["Blocks"]]) -> float:
    """Operations of a step of all pairs by an objective, with contrast at its whole weight."""
    from ssl_pipeline.flight.effort import step_flops
    from ssl_pipeline.objectives.step import backward
    from ssl_pipeline.training.distributed import Ranks
    from ssl_pipeline.views.augment import seen

    arm = study.model_copy(update={"objective": objective})
    built = pretrain.objective_around(pretrain.random_encoder(study, study.seed), arm)
    see = partial(seen, views=study.views, patch=study.model.patch_voxels)

    def step(parts: list["Blocks"]) -> None:
        backward(built, parts, see, 1.0, Ranks(World()), autocast=_fp32, scale=_as_it_is)

    each = [step_flops(partial(step, parts)) for parts in drawn]
    pairs = sum(len(part.number) for part in drawn[0])
    return fmean(each) * study.training.pairs / pairs


def _fp32() -> "autocast":
    import torch

    return torch.autocast("cpu", enabled=False)


def _as_it_is(loss: "Tensor") -> "Tensor":
    return loss
