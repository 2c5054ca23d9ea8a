"""Pooling of the tokens of a crop to one vector: their mean, or attention by learned queries."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline.errors import UserError
from ssl_pipeline.views.patches import pool_tokens


class MeanPool(nn.Module):
    """The weighted mean over tokens."""

    def forward(
        self, tokens: Float[Tensor, "batch tokens dim"], weight: Float[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch dim"]:
        """One vector a crop."""
        return pool_tokens(tokens, weight)


class AttentionPool(nn.Module):
    """Attention pooling: each query weighs tokens for its own share of the features.

    Efficient Probing of Psomas et al. 2025 (arXiv:2506.10178), sec. 3: no projection of keys or
    values. Queries are initialised to zero, which gives the mean. Raises UserError where the
    features cannot be divided evenly.
    """

    def __init__(self, dim: int, queries: int) -> None:
        super().__init__()
        if dim % queries:
            raise UserError(
                f"The attentive probe shares {dim} features among {queries} queries: choose a "
                "number of `queries` that divides them."
            )
        self.norm = nn.LayerNorm(dim)
        self.queries = nn.Parameter(torch.zeros(queries, dim))

    def forward(
        self, tokens: Float[Tensor, "batch tokens dim"], weight: Float[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch dim"]:
        """One vector a crop; tokens of weight 0 are ignored, unless all have weight 0."""
        none = weight.sum(dim=1, keepdim=True) == 0
        bias = torch.log(torch.where(none, torch.ones_like(weight), weight))
        normed = self.norm(tokens)
        similar = normed @ self.queries.to(normed.dtype).T * tokens.shape[2] ** -0.5
        shares = (similar + bias[..., None]).softmax(dim=1)  # (batch, tokens, queries)
        parts = tokens.unflatten(2, (len(self.queries), -1))  # (batch, tokens, queries, features)
        vector: Tensor = (shares[..., None] * parts).sum(dim=1).flatten(1)
        return vector
