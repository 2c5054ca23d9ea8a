"""Measures of collapse: dimension std, uniformity, effective rank (RankMe), drift.

No single number shows every collapse. A mean distance stays fine when all vectors lie on a line,
a rank stays fine when they crowd into a small ball, and neither notices an encoder that has stopped
to change. Ranks are never centred: vectors that are all equal then have rank 1, while centring
would leave rounding noise, of full rank. All functions work on the device of their inputs and
return plain numbers, for they are computed rarely.
"""

import math
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, pdist

CEILING_SEED = 0  # of the draw that shows what rank a number of rows can reach


def alignment(first: Float[Tensor, "samples dim"], second: Float[Tensor, "samples dim"]) -> float:
    """Mean squared distance of two views of a sample on the unit sphere: 0 equal, 2 unrelated.

    Source: Wang & Isola 2020 (arXiv:2005.10242), sec. 4.1, with alpha = 2.
    """
    apart = normalize(first.float(), dim=1) - normalize(second.float(), dim=1)
    return apart.square().sum(dim=1).mean().item()


def uniformity(vectors: Float[Tensor, "samples dim"]) -> float:
    """Evenness on the unit sphere, log mean exp(-2 d^2) over pairs: 0 collapsed, about -4 ideal.

    A uniform distribution gives -3.88, -3.94, -3.97 in 64, 128, 256 dimensions. nan for fewer than
    two rows. Source: Wang & Isola 2020 (arXiv:2005.10242), sec. 4.1, with t = 2.
    """
    if len(vectors) < 2:
        return math.nan
    squared = pdist(normalize(vectors.float(), dim=1)).square()
    return (squared.mul(-2).logsumexp(dim=0) - math.log(len(squared))).item()


def dimension_std(vectors: Float[Tensor, "samples dim"]) -> float:
    """Mean over dimensions of the standard deviation of unit vectors, times sqrt(dim).

    About 1 where directions are spread evenly, 0 where all rows are equal. Source: Chen & He 2021
    (arXiv:2011.10566), sec. 4.1.
    """
    unit = normalize(vectors.float(), dim=1)
    return unit.std(dim=0, correction=0).mean().item() * math.sqrt(vectors.shape[1])


def rankme(vectors: Float[Tensor, "samples dim"]) -> float:
    """RankMe: exp of the entropy of the singular values; from 1 to min(samples, dim), 0 for zeros.

    Depends on the number of rows and on the method: compare it within one run, on one set of
    samples, beside `rankme_ceiling`. nan where a number is not finite. Source: Garrido et al. 2023
    (arXiv:2210.02885).
    """
    if not vectors.isfinite().all():
        return math.nan
    values = torch.linalg.svdvals(vectors.double())
    if not values.sum() > 0:
        return 0.0
    share = values / values.sum()
    return math.exp(torch.special.entr(share).sum().item())


@cache
def rankme_ceiling(samples: int, dim: int) -> float:
    """The effective rank that so many rows can reach: that of independent Gaussian numbers."""
    source = torch.Generator().manual_seed(CEILING_SEED)
    return rankme(torch.randn(samples, dim, generator=source))


def close_negative_share(
    vectors: Float[Tensor, "samples dim"], subject: Int[Tensor, " samples"], cosine: float = 0.9
) -> float:
    """Share of pairs of different subjects whose cosine is above `cosine`; nan without such pairs.

    High where subjects look similar at one location, which makes them false negatives.
    """
    unit = normalize(vectors.float(), dim=1)
    others = subject[:, None] != subject[None, :]
    return (unit @ unit.T > cosine)[others].float().mean().item()


def target_entropy(probabilities: Float[Tensor, "rows prototypes"]) -> float:
    """Mean entropy of rows of probabilities over its largest, log(prototypes): 1 uniform, 0 one.

    nan without rows. A teacher whose targets are all uniform, or all of one prototype, teaches
    nothing (Caron et al. 2021, arXiv:2104.14294, sec. 5.3).
    """
    entropy = torch.special.entr(probabilities.double()).sum(dim=1).mean().item()
    return min(1.0, float(entropy) / math.log(probabilities.shape[1]))


def prototype_share(probabilities: Float[Tensor, "rows prototypes"]) -> float:
    """Exp of the entropy of the mean row, over the smaller side of the table; nan without rows.

    The effective number of prototypes in use, as RankMe is of directions. Uniform rows use all:
    read it with `target_entropy`.
    """
    used = torch.special.entr(probabilities.double().mean(dim=0)).sum().exp().item()
    return min(1.0, float(used) / max(1, min(probabilities.shape)))


def embedding_drift(
    current: Float[Tensor, "samples dim"], previous: Float[Tensor, "samples dim"]
) -> float:
    """Relative change of the embeddings of the same samples between two snapshots; 0 is frozen.

    sum |current - previous| / sum |previous| over samples; nan where `previous` is zero.
    """
    length = previous.float().norm(dim=1).sum().item()
    moved = (current.float() - previous.float()).norm(dim=1).sum().item()
    return moved / length if length > 0 else math.nan
