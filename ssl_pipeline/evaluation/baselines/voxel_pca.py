"""Baseline of segmentation: 5 x 5 x 5 neighbourhoods, PCA, logistic regression.

Half of the training voxels are background and half are spread over the classes. Moving the
intercepts to the true shares afterwards was tried and dropped: small structures then vanish (mean
Dice .003 instead of .15 on two small structures of MR crops), and a baseline should be as good as
it can be. PCA and regression are both linear, so a whole volume takes one product.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ssl_pipeline.evaluation.data.source_grid import Slab
from ssl_pipeline.preprocess.chunking import slabs

SIDE = 5
COMPONENTS = 32
MAX_VOXELS = 600  # of a scan for training: of its background, and of all its classes together


@dataclass(frozen=True)
class VoxelModel:
    """A linear classifier of neighbourhoods."""

    classes: NDArray[np.int64]  # (k,) indices
    weight: NDArray[np.float32]  # (125, k)
    bias: NDArray[np.float32]  # (k,)

    def predict(self, image: NDArray[np.float32]) -> Iterator[Slab]:
        """The probabilities of class indices of a volume (z, y, x) of model input, in slabs.

        Indices that no training voxel showed have probability 0.
        """
        around = _neighbourhoods(image)
        for part in slabs(len(image), image[0].size * SIDE**3):
            logits = around[part].reshape(-1, SIDE**3) @ self.weight + self.bias
            shape = image[part].shape
            found = np.zeros((int(self.classes.max()) + 1, *shape), np.float32)
            found[self.classes] = scipy.special.softmax(logits, axis=1).T.reshape(-1, *shape)
            yield Slab(part.start, found)


@dataclass(frozen=True)
class VoxelSample:
    """Training voxels of one scan."""

    rows: NDArray[np.float32]  # (n, 125)
    targets: NDArray[np.int64]  # (n,), 0 background


def sample_voxels(
    image: NDArray[np.float32],
    truth: NDArray[np.uint8],
    annotated: Sequence[bool],
    rng: np.random.Generator,
    *,
    background: bool,
) -> VoxelSample:
    """Draw voxels of the annotated classes of a scan (z, y, x), and of `background` if asked."""
    around, flat = _neighbourhoods(image), truth.ravel()
    wanted = {0: MAX_VOXELS} if background else {}
    wanted |= {i: MAX_VOXELS // len(annotated) for i, each in enumerate(annotated, start=1) if each}
    places = []
    for index, number in wanted.items():
        where = np.flatnonzero(flat == index)
        places.append(rng.choice(where, min(number, len(where)), replace=False))
    chosen = np.concatenate(places) if places else np.zeros(0, np.int64)
    rows = around[np.unravel_index(chosen, truth.shape)].reshape(-1, SIDE**3)
    return VoxelSample(rows, flat[chosen].astype(np.int64))


def fit(samples: Sequence[VoxelSample], seed: int) -> VoxelModel:
    """Fit the baseline on the voxels of the labelled scans."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    rows = np.concatenate([part.rows for part in samples])
    targets = np.concatenate([part.targets for part in samples])
    classes = np.unique(targets)
    if len(classes) < 2:
        constant = classes if len(classes) else np.zeros(1, np.int64)
        return VoxelModel(constant, np.zeros((SIDE**3, 1), np.float32), np.zeros(1, np.float32))
    pca = PCA(min(COMPONENTS, len(rows) - 1), whiten=True, random_state=seed)
    regression = LogisticRegression(max_iter=10_000)
    with threadpool_limits(1, "blas"):  # thousands of small steps: threads would wait
        make_pipeline(pca, regression).fit(rows, targets)
    coefficients, intercept = regression.coef_, regression.intercept_
    if len(classes) == 2:  # one row, of the second class against the first
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    projection = pca.components_.T / np.sqrt(pca.explained_variance_).clip(min=1e-6)
    weight = projection @ coefficients.T
    bias = intercept - pca.mean_ @ weight
    return VoxelModel(classes, weight.astype(np.float32), bias.astype(np.float32))


def _neighbourhoods(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The neighbourhoods of all voxels as a view (z, y, x, 5, 5, 5), edges repeated."""
    padded = np.pad(image, SIDE // 2, mode="edge")
    view: NDArray[np.float32] = sliding_window_view(padded, (SIDE, SIDE, SIDE))
    return view
