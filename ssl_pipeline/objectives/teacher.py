"""The teacher of self-distillation: averages of the encoder and its heads over the steps.

It is part of the objective, so that checkpoints and ranks treat it as all other weights; no
gradient reaches it. Its outputs are centred (Caron et al. 2021, arXiv:2104.14294) and not balanced
within the batch, so that rows of a batch are independent: a step in parts, or on several ranks, is
the same step. The centre follows the mean over the WHOLE batch.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.objectives.term_inputs import Crops, Images, Targets
from ssl_pipeline.objectives.terms.distillation import DistillationTerm

CENTER_MOMENTUM = 0.9  # as of DINO


class TeacherHead(nn.Module):
    """The average of a term's projection, with the centre and temperature of its outputs."""

    center: Tensor
    temperature: Tensor

    def __init__(self, projection: nn.Module, prototypes: int, temperature: float) -> None:
        super().__init__()
        self.projection = projection
        self.register_buffer("center", torch.zeros(prototypes))
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, rows: Float[Tensor, "rows dim"], weight: Float[Tensor, " rows"]) -> Targets:
        """Probabilities of rows, and the weighted sum of their outputs before centring."""
        outputs = self.projection(rows).float()
        probabilities = ((outputs - self.center) / self.temperature).softmax(dim=-1)
        return Targets(probabilities, weight @ outputs)


class TeacherNetwork(nn.Module):
    """Averages with the weights of an encoder and of the heads of some terms as their start."""

    def __init__(
        self,
        encoder: Encoder,
        heads: Mapping[str, nn.Module],
        terms: Sequence[DistillationTerm],
        momentum: float,
    ) -> None:
        super().__init__()
        self.terms, self.momentum = tuple(terms), momentum
        self.encoder = deepcopy(encoder)
        self.heads = nn.ModuleDict(
            {
                term.name: TeacherHead(
                    deepcopy(term.projection(heads[term.name])),
                    term.prototypes,
                    term.teacher_temperature_at(0.0),
                )
                for term in terms
            }
        )
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, crops: Crops, images: Images) -> dict[str, Targets]:
        """What whole crops should be taken for, by the names of the terms."""
        tokens = self.encoder(images, crops.batch.spacing_mm)
        return {
            term.name: self._head(term)(term.teacher_rows(crops, tokens), term.row_weight(crops))
            for term in self.terms
        }

    @torch.no_grad()
    def update(
        self,
        encoder: Encoder,
        heads: Mapping[str, nn.Module],
        output_means: Mapping[str, Float[Tensor, " prototypes"]],
        progress: float,
    ) -> None:
        """Follow the encoder and heads after a step, and the mean of the outputs of its batch."""
        trained = [encoder, *(term.projection(heads[term.name]) for term in self.terms)]
        own = [self.encoder, *(self._head(term).projection for term in self.terms)]
        torch._foreach_lerp_(_parameters(own), _parameters(trained), 1 - self.momentum)
        for term in self.terms:
            head = self._head(term)
            head.center.lerp_(output_means[term.name], 1 - CENTER_MOMENTUM)
            head.temperature.fill_(term.teacher_temperature_at(progress))

    def _head(self, term: DistillationTerm) -> TeacherHead:
        return cast(TeacherHead, self.heads[term.name])


def _parameters(modules: Sequence[nn.Module]) -> list[Tensor]:
    return [parameter for module in modules for parameter in module.parameters()]
