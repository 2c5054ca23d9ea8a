"""The scans that an encoder finds most similar to one, for a reader to compare it with."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COUNT = 6  # that are listed


@dataclass(frozen=True)
class Neighbour:
    """A scan that an encoder finds similar."""

    similarity: float  # cosine of the embeddings, -1 to 1
    thumbnail: bytes  # JPEG of its middle planes


def find_neighbours(
    embeddings: Mapping[str, NDArray[np.float64]], thumbnails: Mapping[str, bytes]
) -> dict[str, tuple[Neighbour, ...]]:
    """The nearest COUNT others of each scan, by its code; the nearest first.

    Embeddings (dim,) and thumbnails are by code too; scans without a thumbnail are left out.
    """
    codes = [code for code in embeddings if code in thumbnails]
    if not codes:
        return {}
    rows = np.stack([embeddings[code] for code in codes])
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    found = {}
    for row, code in enumerate(codes):
        similarity = rows @ rows[row]
        order = [int(at) for at in np.argsort(-similarity, kind="stable") if at != row][:COUNT]
        found[code] = tuple(Neighbour(float(similarity[at]), thumbnails[codes[at]]) for at in order)
    return found
