"""Many linear heads trained at once, of which cross-validation chooses one: DINOv2's protocol.

Heads differ in their learning rate and in how many of the encoder's last blocks they read (Oquab et
al. 2023, arXiv:2304.07193, app. B.3; its class token is none of ours). DINOv2 chooses on the
validation set; here subjects are too few for that, so a head is chosen in folds of the labelled
subjects, and trained once more on all of them.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from ssl_pipeline.evaluation.probes.fitted import Fitted, learned
from ssl_pipeline.evaluation.probes.folds import cross_validated
from ssl_pipeline.section import Section

MOMENTUM = 0.9
USUAL = 0.01  # rate of the head, of the last block, where subjects are too few for folds


class Sweep(Section):
    """Linear heads by stochastic gradient descent."""

    TITLE: ClassVar[str] = "sweep of linear heads"
    SECONDS: ClassVar[float] = 5.0  # of a fit

    name: Literal["sweep"] = "sweep"
    rates: tuple[PositiveFloat, ...] = Field(
        (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
        min_length=1,
        description="learning rates, for batches of 256",
    )
    blocks: tuple[PositiveInt, ...] = Field(
        (1, 4), min_length=1, description="numbers of last blocks that a head reads"
    )
    steps: PositiveInt = Field(500, description="steps of a head")
    batch: PositiveInt = Field(128, description="crops of a step")

    @property
    def deepest(self) -> int:
        """How many of the last blocks are asked for."""
        return max(self.blocks)

    def fit(
        self,
        train: NDArray[np.float32],
        targets: NDArray[Any],
        subjects: NDArray[np.int64],
        n_classes: int,
        seed: int,
    ) -> Fitted:
        """Learn from `train` (n, blocks, D) and `targets` (n,), rows of `subjects` (n,).

        What comes back maps features (m, blocks, D) to probabilities (m, n_classes); without
        classes, to numbers (m, 1). A class that `targets` lacks gets probability 0.
        """
        return learned(
            targets,
            n_classes,
            lambda told, number: self._chosen(train, told, subjects, number, seed),
        )

    def parameters(self, dim: int, n_classes: int) -> int:
        """Trained parameters of one head of the last block, for features of width `dim`."""
        return (dim + 1) * max(1, n_classes)

    def _chosen(
        self,
        train: NDArray[np.float32],
        targets: NDArray[Any],
        subjects: NDArray[np.int64],
        n_classes: int,
        seed: int,
    ) -> Fitted:
        """The head that folds choose, trained on all."""
        depths = sorted({min(blocks, train.shape[1]) for blocks in self.blocks})
        heads = [(depth, rate) for depth in depths for rate in self.rates]

        def fits(known: NDArray[np.float32], told: NDArray[Any]) -> list[Fitted]:
            trained = (self._heads(known[:, :d], told, n_classes, self.rates, seed) for d in depths)
            return [head for of_depth in trained for head in of_depth]

        scores = cross_validated(fits, train, targets, subjects, n_classes)
        depth, rate = (1, USUAL) if scores is None else heads[int(np.argmax(scores))]
        (chosen,) = self._heads(train[:, :depth], targets, n_classes, (rate,), seed)
        return chosen

    def _heads(
        self,
        train: NDArray[np.float32],
        targets: NDArray[Any],
        n_classes: int,
        rates: tuple[float, ...],
        seed: int,
    ) -> list[Fitted]:
        """One head a rate, of all the blocks that `train` has."""
        rows = train.reshape(len(train), -1).astype(np.float64)
        mean, scale = rows.mean(axis=0), max(float(rows.std(axis=0).mean()), 1e-12)
        middle, spread = (0.0, 1.0) if n_classes else (targets.mean(), targets.std() or 1.0)
        truth = np.eye(n_classes)[targets] if n_classes else ((targets - middle) / spread)[:, None]
        weight = 1 / (truth.sum(axis=0)[targets]) if n_classes else np.ones(len(truth))
        with_one = np.pad((rows - mean) / scale, ((0, 0), (0, 1)), constant_values=1.0)
        final = self._descended(with_one, truth, weight / weight.mean(), n_classes, rates, seed)

        def fitted(head: NDArray[np.float64]) -> Fitted:
            def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
                asked = test[:, : train.shape[1]].reshape(len(test), -1)
                outputs = (asked - mean) / scale @ head[:-1] + head[-1]
                found: NDArray[np.float64] = _likely(outputs) if n_classes else outputs
                return found * spread + middle

            return predict

        return [fitted(head) for head in final]

    def _descended(
        self,
        given: NDArray[np.float64],
        truth: NDArray[np.float64],
        weight: NDArray[np.float64],
        n_classes: int,
        rates: tuple[float, ...],
        seed: int,
    ) -> NDArray[np.float64]:
        """Heads (rates, D + 1, outputs) for rows (n, D + 1); they share batches, and begin at zero.

        Down the cross-entropy of classes, or the squared error; either has the slope of what is
        predicted less the truth (n, outputs).
        """
        heads = np.zeros((len(rates), given.shape[1], truth.shape[1]))
        moving, pace = np.zeros_like(heads), np.array(rates)[:, None, None] * self.batch / 256
        rng = np.random.default_rng(seed)
        for step in range(self.steps):
            chosen = rng.integers(len(given), size=self.batch)
            outputs = given[chosen] @ heads
            off = (_likely(outputs) if n_classes else outputs) - truth[chosen]
            slope = given[chosen].T @ (off * weight[chosen, None]) / self.batch
            moving = MOMENTUM * moving + slope
            heads -= pace * moving * (0.5 + 0.5 * np.cos(np.pi * step / self.steps))
        return heads


def _likely(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the last axis."""
    raised = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    likely: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return likely
