"""Learning rate schedule, progress of a run, and parameter groups for weight decay."""

import math

from torch import nn

from ssl_pipeline.training.config import Training


def learning_rate(step: int, section: Training) -> float:
    """Linear warm-up, then half a cosine down to `min_learning_rate`; a function of the step alone.

    A run that continues another does both again, over the steps that it adds.
    """
    step, steps = step - section.first_step, section.steps - section.first_step
    warmup = max(1, round(section.warmup * steps))
    if step < warmup:
        return section.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    span = section.learning_rate - section.min_learning_rate
    return section.min_learning_rate + span * 0.5 * (1 + math.cos(math.pi * share))


def run_progress(step: int, section: Training) -> float:
    """Fraction of the run that is done, for the ramp; 1 where it continues a finished run."""
    return 1.0 if section.continue_from else step / section.steps


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms and tokens do not."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]
