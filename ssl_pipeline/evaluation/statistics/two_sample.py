"""Whether two samples come from one distribution: the energy distance, tested by permutation.

Twice the mean distance between samples, less the mean distances within each, is 0 only where the
distributions are equal (Szekely & Rizzo 2004, "Testing for equal distributions in high dimension",
InterStat 5). Where both samples are of one distribution their rows can be exchanged, so the test
keeps its level, whatever that distribution is; the observed order counts as one of the permutations
(Phipson & Smyth 2010, arXiv:1603.05766).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

PERMUTATIONS = 9_999
MAX_ROWS = 500  # of each sample, drawn at random: distances grow with the square
BATCH = 500  # permutations at once
RELATIVE_TIE = 1e-9  # sums in another order are equal to that

Rows = NDArray[np.float64]  # (n, dim)


def energy_p_value(first: Rows, second: Rows, rng: np.random.Generator) -> float:
    """p-value of two samples (n, dim) and (m, dim) of independent rows, for equal distributions.

    Columns are scaled by their standard deviation over both samples; those that are constant say
    nothing. At least 1 / (PERMUTATIONS + 1), and 1 where all rows are equal.
    """
    first, second = _at_most(first, rng), _at_most(second, rng)
    rows = np.concatenate([first, second])
    scale = rows.std(axis=0)
    scaled = rows / np.where(scale > 0, scale, 1.0)
    distances = cdist(scaled, scaled)
    is_first = np.repeat([1.0, 0.0], [len(first), len(second)])
    observed = _energy(distances, is_first[None])[0]
    least = observed - RELATIVE_TIE * max(abs(observed), float(distances.mean()))
    count = 1
    for start in range(0, PERMUTATIONS, BATCH):
        number = min(BATCH, PERMUTATIONS - start)
        permuted = rng.permuted(np.tile(is_first, (number, 1)), axis=1)
        count += int((_energy(distances, permuted) >= least).sum())
    return count / (PERMUTATIONS + 1)


def _at_most(rows: Rows, rng: np.random.Generator) -> Rows:
    if len(rows) <= MAX_ROWS:
        return rows
    return rows[rng.choice(len(rows), MAX_ROWS, replace=False)]


def _energy(distances: Rows, is_first: Rows) -> Rows:
    """Energy distance (permutations,) of the rows that are of the first sample and the others.

    `distances` is (rows, rows), `is_first` (permutations, rows) of 0 and 1.
    """
    n = float(is_first[0].sum())
    m = len(distances) - n
    first = ((is_first @ distances) * is_first).sum(axis=1)
    between = is_first @ distances.sum(axis=1) - first
    second = distances.sum() - 2 * between - first
    energy: Rows = 2 * between / (n * m) - first / n**2 - second / m**2
    return energy
