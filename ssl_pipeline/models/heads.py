"""Projection heads of contrast and of self-distillation."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


def projection_head(dim: int, out_dim: int) -> nn.Sequential:
    """A two-layer head with LayerNorm: batch norm leaks between views and needs large batches."""
    return nn.Sequential(
        nn.Linear(dim, 4 * dim), nn.GELU(), nn.LayerNorm(4 * dim), nn.Linear(4 * dim, out_dim)
    )


class PrototypeHead(nn.Module):
    """Three layers, and the cosines of their output with prototypes.

    Source: Caron et al. 2021 (arXiv:2104.14294), app. C, with the weight norm of the last layer
    written out: torch's own, which lightly's head has, can be neither copied nor compiled.
    """

    def __init__(self, dim: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        widths = (dim, 4 * dim, 4 * dim, bottleneck)
        layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
        self.layers = nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        for weight in (self.prototypes, *(layer.weight for layer in layers)):
            nn.init.trunc_normal_(weight, std=0.02)
        for layer in layers:
            nn.init.zeros_(layer.bias)

    def forward(self, rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows prototypes"]:
        """Cosines of rows with prototypes."""
        unit = normalize(self.layers(rows).float(), dim=-1)
        return linear(unit, normalize(self.prototypes, dim=-1))


class PatchPredictor(nn.Module):
    """A decoder that predicts the tokens of hidden patches, and their projection to prototypes."""

    def __init__(self, decoder: nn.Module, projection: PrototypeHead) -> None:
        super().__init__()
        self.decoder, self.projection = decoder, projection
