"""Early stopping: the weights of the check that some labelled subjects, not trained on, score best.

Labels are few, so by default all are trained on and the steps are fixed; see
`finetune.held_out_share`.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from torch import Tensor, nn

CHECKS = 10  # of a training, at equal distances
PATIENCE = 3  # checks without improvement, after which training ends


class EarlyStopping:
    """Keeps the weights with the lowest loss on held-out subjects."""

    def __init__(self, loss_of: Callable[[Any], float], steps: int) -> None:
        self.loss_of, self.interval = loss_of, max(1, steps // CHECKS)
        self.best_loss, self.best_weights = float("inf"), dict[str, Tensor]()
        self.checks_since_best = 0

    @property
    def is_over(self) -> bool:
        """Whether training should end."""
        return self.checks_since_best >= PATIENCE

    def is_due(self, step: int) -> bool:
        """Whether a check follows this step."""
        return (step + 1) % self.interval == 0

    def check(self, model: nn.Module) -> None:
        """Keep the weights of a model if they are the best so far."""
        loss = self.loss_of(model)
        if loss < self.best_loss:
            self.best_loss, self.checks_since_best = loss, 0
            self.best_weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        else:
            self.checks_since_best += 1

    def restore(self, model: nn.Module) -> None:
        """Give a model the best weights; those it has where no check gave a number."""
        if self.best_weights:
            model.load_state_dict(self.best_weights)


def hold_out(
    subjects: Collection[str],
    share: float,
    rng: np.random.Generator,
    predicted: Collection[str] = (),
) -> frozenset[str]:
    """Subjects that choose the step: a share, at least one; none where there is one alone.

    Those of `predicted`, who have a label that a model predicted, are trained on in any case.
    """
    names = sorted(set(subjects))
    number = max(1, round(share * len(names))) if share and len(names) > 1 else 0
    choosing = [name for name in rng.permutation(names).tolist() if name not in predicted]
    return frozenset(choosing[:number])
