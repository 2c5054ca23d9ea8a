"""Learning rate schedule, progress of a run, and parameter groups for weight decay."""

import math

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


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Parameters with and without weight decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if has_weight_decay(p)]
    others = [p for p in trained if not has_weight_decay(p)]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]
