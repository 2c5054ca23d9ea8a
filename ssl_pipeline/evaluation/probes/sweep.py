"""Sweep of linear heads, of which cross-validation chooses one: the protocol of DINOv2.

Heads differ in their learning rate and in how many of the encoder's last blocks they use (Oquab et
al. 2023, arXiv:2304.07193, app. B.3; without its class token). DINOv2 chooses on the
validation set; here subjects are too few for that, so a head is chosen in folds of the labelled
subjects, and trained once more on all of them.
"""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from ssl_pipeline.evaluation.probes.folds import FOLD_DRAWS, choose_candidate
from ssl_pipeline.evaluation.probes.linear import fit_scaler
from ssl_pipeline.evaluation.probes.predictor import LabelledFeatures, PredictFunction, Predictor

MOMENTUM = 0.9
DEFAULT_RATE = 0.01  # of a head on the last block, where subjects are too few for folds


class Sweep(Predictor):
    """Linear heads by stochastic gradient descent."""

    TITLE: ClassVar[str] = "sweep of linear heads"
    FIT_SECONDS: ClassVar[float] = 13.0

    name: Literal["sweep"] = "sweep"
    learning_rates: tuple[PositiveFloat, ...] = Field(
        (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
        min_length=1,
        description="learning rates, for batches of 256",
    )
    last_blocks: tuple[PositiveInt, ...] = Field(
        (1, 4), min_length=1, description="numbers of last blocks that a head uses"
    )
    steps: PositiveInt = Field(500, description="steps of a head")
    batch_size: PositiveInt = Field(128, description="crops of a step")
    fold_draws: PositiveInt = Field(
        FOLD_DRAWS, description="times that subjects are divided into folds anew, to choose a head"
    )

    @property
    def n_blocks(self) -> int:
        """Number of last blocks whose features it uses."""
        return max(self.last_blocks)

    @property
    def n_fold_draws(self) -> int:
        """Draws of folds in which it chooses a head."""
        return self.fold_draws

    def learn(self, labelled: LabelledFeatures, seed: int) -> PredictFunction:
        """The head that cross-validation chooses, trained on all labelled features."""
        depths = sorted({min(blocks, labelled.features.shape[1]) for blocks in self.last_blocks})
        rates = tuple(sorted(self.learning_rates))
        heads = [(depth, rate) for depth in depths for rate in rates]

        def fits(part: LabelledFeatures) -> list[PredictFunction]:
            trained = (self._fit_heads(part, depth, rates, seed) for depth in depths)
            return [head for of_depth in trained for head in of_depth]

        best = choose_candidate(fits, labelled, self.fold_draws)
        depth, rate = (1, DEFAULT_RATE) if best is None else heads[best]
        (chosen,) = self._fit_heads(labelled, depth, (rate,), seed)
        return chosen

    def _fit_heads(
        self, labelled: LabelledFeatures, depth: int, rates: tuple[float, ...], seed: int
    ) -> list[PredictFunction]:
        """One head for each learning rate, on the last `depth` blocks."""
        n_classes, targets = labelled.n_classes, labelled.targets
        rows = _concatenate_blocks(labelled.features, depth)
        scaled = fit_scaler(rows)
        middle, spread = (0.0, 1.0) if n_classes else (targets.mean(), targets.std() or 1.0)
        truth = np.eye(n_classes)[targets] if n_classes else ((targets - middle) / spread)[:, None]
        weight = 1 / (truth.sum(axis=0)[targets]) if n_classes else np.ones(len(truth))
        with_one = np.pad(scaled(rows), ((0, 0), (0, 1)), constant_values=1.0)
        final = self._sgd(with_one, truth, weight / weight.mean(), n_classes, rates, seed)

        def fitted(head: NDArray[np.float64]) -> PredictFunction:
            def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
                outputs = scaled(_concatenate_blocks(test, depth)) @ head[:-1] + head[-1]
                found: NDArray[np.float64] = _softmax(outputs) if n_classes else outputs
                return found * spread + middle

            return predict

        return [fitted(head) for head in final]

    def _sgd(
        self,
        rows: NDArray[np.float64],
        truth: NDArray[np.float64],
        weight: NDArray[np.float64],
        n_classes: int,
        rates: tuple[float, ...],
        seed: int,
    ) -> NDArray[np.float64]:
        """Heads (rates, D + 1, outputs) for rows (n, D + 1), by SGD on common batches from zero.

        The loss is the cross-entropy of classes, or the squared error; the gradient of either is
        the prediction less the truth (n, outputs).
        """
        heads = np.zeros((len(rates), rows.shape[1], truth.shape[1]))
        velocity, step_sizes = (
            np.zeros_like(heads),
            np.array(rates)[:, None, None] * self.batch_size / 256,
        )
        rng = np.random.default_rng(seed)
        for step in range(self.steps):
            chosen = rng.integers(len(rows), size=self.batch_size)
            outputs = rows[chosen] @ heads
            error = (_softmax(outputs) if n_classes else outputs) - truth[chosen]
            gradient = rows[chosen].T @ (error * weight[chosen, None]) / self.batch_size
            velocity = MOMENTUM * velocity + gradient
            heads -= step_sizes * velocity * (0.5 + 0.5 * np.cos(np.pi * step / self.steps))
        return heads


def _concatenate_blocks(features: NDArray[np.float32], depth: int) -> NDArray[np.float32]:
    """Features (n, depth x D) of the last blocks of (n, blocks, D)."""
    return features[:, :depth].reshape(len(features), -1)


def _softmax(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the last axis."""
    raised = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    likely: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return likely
