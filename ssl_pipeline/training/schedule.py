"""The learning rate of a step, and which parameters decay."""

import math

from torch import nn

from ssl_pipeline.training.config import Training


def learning_rate(step: int, section: Training) -> float:
    """Linear warm-up, then half a cosine down to `final_rate`; a function of the step alone."""
    warmup = max(1, round(section.warmup * section.steps))
    if step < warmup:
        return section.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, section.steps - warmup)
    span = section.learning_rate - section.final_rate
    return section.final_rate + span * 0.5 * (1 + math.cos(math.pi * share))


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms and tokens do not."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]
