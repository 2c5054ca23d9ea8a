"""Count the FLOPs of a step of every arm of an ablation, and the steps that each arm gets.

All arms get the FLOPs that the study's own objective takes in `training.steps`. A step is counted
as it is trained, forward and backward, on real crops.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ssl_pipeline.io.records import write_record
from ssl_pipeline.progress import progress
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training.ranks import RankInfo
from stages import pretrain
from stages.core import layout
from stages.core.layout import BUDGET_FILE
from stages.core.pretraining_runs import read_cohort
from stages.core.records import manifest_hash
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    ResourceEstimate,
    assumed,
    counted,
)
from stages.core.stage import StageResult
from stages.core.study import Study
from stages.core.trials import ArmBudget, FlopBudget, require_ablation
from stages.trainer import build_objective, build_sampler, random_encoder

if TYPE_CHECKING:
    from torch import Tensor, autocast

    from ssl_pipeline.views.collate import SampleBatch

MICRO_BATCH_SIZE = 8  # all terms but that between subjects, a thousandth, grow with it
STEPS = 4  # whose mean is taken, for the number of matched places varies
BASE_BYTES = 1.5e9  # torch, and the activations of so few crops
TITLE = "Count the FLOPs of an ablation's objectives, and the steps of each"
CONFIG_KEYS = (*pretrain.CONFIG_KEYS, "ablate.arms")
DEPENDS_ON = ("preprocess",)
VERSION = 3
OUTPUTS = (BUDGET_FILE,)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = False, False, False
SHARDED, PER_TRIAL = False, False


def is_needed(study: Study) -> bool:
    """Whether the study compares objectives."""
    return study.ablate is not None


def inputs(study: Study) -> dict[str, str]:
    """Stored volumes. Raises UserError where no objectives are compared."""
    require_ablation(study)
    return {"preprocess": manifest_hash(study, "preprocess")}


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """One small file."""
    return ResourceEstimate(
        disk=counted(1e3, "one small file"),
        files=counted(RECORD_FILE_COUNT + 1, "one small file"),
        memory=assumed(BASE_BYTES, "torch and a few crops"),
        seconds=assumed(20.0, "a few steps"),
    )


def run(study: Study, out: Path) -> StageResult:
    """Write the FLOPs of a step and the number of steps of every arm."""
    assert study.ablate
    whole = _step_flops(study) * study.training.steps
    arms = {}
    with progress("Counting FLOPs", total=len(study.ablate.arms)) as bar:
        for name, objective in study.ablate.arms.items():
            bar.begin(name)
            flops = _step_flops(study.model_copy(update={"objective": objective}))
            arms[name] = ArmBudget(step_flops=round(flops), steps=max(1, round(whole / flops)))
            bar.advance(name)
    write_record(out / BUDGET_FILE, FlopBudget(flops=round(whole), arms=arms))
    steps = ", ".join(f"{arm.steps} steps of {name}" for name, arm in arms.items())
    return StageResult([out / BUDGET_FILE], f"{whole:.3g} FLOPs are {steps}")


def _batches(study: Study) -> Iterator[list["SampleBatch"]]:
    """Micro-batches of a few steps, of as many samples as need to be counted.

    With the metadata that the objective reads.
    """
    catalog = Catalog.read(layout.catalog_table(study))
    entries = read_cohort(study).entries(catalog)
    parts = study.training.gradient_accumulation
    samples = parts * min(MICRO_BATCH_SIZE, study.training.batch_size // parts)
    sampler = build_sampler(study, catalog, entries, samples)
    micro_batches = RankInfo().micro_batches(sampler.batch_size, parts)
    for step in range(STEPS):
        yield [sampler.batch(step, part) for part in micro_batches]


def _step_flops(study: Study) -> float:
    """FLOPs of a step of the whole batch by the objective, with contrast at its full weight."""
    from ssl_pipeline.monitoring.utilization import step_flops
    from ssl_pipeline.objectives.backward import backward
    from ssl_pipeline.training.distributed import RankGroup
    from ssl_pipeline.views.augmentation import augmented_views

    built = build_objective(random_encoder(study, study.seed), study)
    batches = list(_batches(study))
    augment = partial(augmented_views, views=study.views, patch=study.model.patch_voxels)

    def step(parts: list["SampleBatch"]) -> None:
        backward(
            built, parts, augment, 1.0, RankGroup(RankInfo()), autocast=_fp32, scale_loss=_identity
        )

    each = [step_flops(partial(step, parts)) for parts in batches]
    samples = sum(len(part.meta.number) for part in batches[0])
    return fmean(each) * study.training.batch_size / samples


def _fp32() -> "autocast":
    import torch

    return torch.autocast("cpu", enabled=False)


def _identity(loss: "Tensor") -> "Tensor":
    return loss
