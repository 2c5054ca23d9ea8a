"""Learning rate schedule, progress of a run, and its optimizer."""

import math

import torch
from torch import nn

from ssl_pipeline.training.config import Training

POLYNOMIAL_POWER = 0.9  # nnU-Net's


def learning_rate(step: int, section: Training) -> float:
    """Linear warm-up, then half a cosine down to `min_learning_rate`; a function of the step alone.

    A run that continues another does both again, over the steps that it adds; where it adds fewer
    than that had, up to a rate that is lower by the root of their ratio: it is to add to what was
    learned, not to replace it.
    """
    before = section.first_step
    peak = section.learning_rate
    if before:
        peak *= min(1.0, math.sqrt((section.steps - before) / before))
    step, steps = step - before, section.steps - before
    warmup = max(1, round(section.warmup * steps))
    return warmup_cosine(step, steps, warmup, peak, section.min_learning_rate)


def warmup_cosine(
    step: int, steps: int, warmup: int, peak: float = 1.0, final: float = 0.0
) -> float:
    """Linear warm-up to `peak` in `warmup` of `steps` steps, then half a cosine to `final`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * share))


def warmup_polynomial(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up to 1 in `warmup` of `steps` steps, then nnU-Net's polynomial down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return float((1 - (step - warmup) / max(1, steps - warmup)) ** POLYNOMIAL_POWER)


def run_progress(step: int, section: Training) -> float:
    """Fraction of the run that is done, for the ramp; 1 where it continues a finished run."""
    return 1.0 if section.continue_from else step / section.steps


def has_weight_decay(parameter: nn.Parameter) -> bool:
    """Whether weights decay: matrices do; biases, norms and tokens do not."""
    return parameter.ndim > 1


def build_optimizer(model: nn.Module, section: Training) -> torch.optim.AdamW:
    """The optimizer of all that is trained, without moments."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for p in trained if has_weight_decay(p)],
            "weight_decay": section.weight_decay,
        },
        {"params": [p for p in trained if not has_weight_decay(p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=section.betas, fused=True)
