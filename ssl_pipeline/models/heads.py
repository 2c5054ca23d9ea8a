"""Projection heads of the contrastive losses."""

from torch import nn


def projection_head(dim: int, out_dim: int) -> nn.Sequential:
    """A two-layer head with LayerNorm: batch norm leaks between views and needs large batches."""
    return nn.Sequential(
        nn.Linear(dim, 4 * dim), nn.GELU(), nn.LayerNorm(4 * dim), nn.Linear(4 * dim, out_dim)
    )
