"""Masking: the choice of the tokens of a crop that the encoder sees."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def choose_visible(
    valid_share: Float[Tensor, "views tokens"],
    body_share: Float[Tensor, "views tokens"],
    order: Float[Tensor, "views tokens"],
    *,
    count: int,
    max_background: float,
) -> tuple[Int[Tensor, "views count"], Int[Tensor, "views rest"]]:
    """The `count` visible tokens of each crop, sorted, and the others in random order.

    `valid_share` and `body_share` hold the fraction of such voxels of each token, `order` random
    numbers. Tokens that are at least half valid come first, and of them at most the fraction
    `max_background` of `count` from outside the body, unless the body has too few: the number is
    fixed, so that shapes are.
    """
    by = order.argsort(dim=1)
    usable, inside = valid_share.gather(1, by) >= 0.5, body_share.gather(1, by) >= 0.5
    inside, outside = usable & inside, usable & ~inside
    there, here = outside.sum(1, keepdim=True), inside.sum(1, keepdim=True)
    # As many from outside as a uniform draw would give, but no more than the limit.
    share = there.double() / (there + here).clamp(min=1)
    wanted = (share * count).round().clamp(max=int(max_background * count)).long()
    turn = torch.full_like(by, 4)  # 0 is taken first, 4 last
    turn[outside] = 2
    turn[inside] = 3
    turn[outside & (outside.cumsum(1) <= wanted)] = 1
    turn[inside & (inside.cumsum(1) <= count - wanted)] = 0
    ranked = by.gather(1, turn.argsort(dim=1, stable=True))
    seen, rest = ranked.split([count, ranked.shape[1] - count], dim=1)
    # Random again: `rest` has those outside the body after those inside it.
    return seen.sort(dim=1).values, rest.gather(1, order.gather(1, rest).argsort(dim=1))
