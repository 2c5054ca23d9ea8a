"""Gradient of a step over its whole batch, divided over ranks and micro-batches.

Terms that are means over voxels or tokens are sums divided by the counts of the WHOLE batch, so the
gradients of its parts only have to be added. A vector term compares the vectors of all views of the
batch: they are computed first, their own gradient is taken from the loss of all of them, and is
then led back through the encoder part by part (gradient caching, Gao et al. 2021,
arXiv:2101.06983). With one part its only pass serves both; with several, the first pass keeps no
activations, which costs a third of a step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ssl_pipeline.objectives.objective import Objective, TermOutputs
from ssl_pipeline.objectives.term_inputs import TermMetadata, concatenate_metadata
from ssl_pipeline.views.crops import Batch

MicroBatch = TypeVar("MicroBatch")


@dataclass(frozen=True)
class Losses:
    """One rank's part of the losses of a step, detached: the sum over ranks is the batch's."""

    total: Tensor
    by_term: dict[str, Tensor]  # by term, without their weights
    teacher_means: dict[str, Tensor]  # of the teacher's outputs over the whole batch, by term


@runtime_checkable
class Collectives(Protocol):
    """Collective operations of the ranks that share a batch."""

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks."""

    def gather(self, values: Tensor) -> Tensor:
        """The rows of all ranks, in their order; this rank's own carry gradient."""


@dataclass(frozen=True)
class _BatchStatistics:
    """Statistics of the whole batch that its micro-batches need, by the names of the terms."""

    counts: dict[str, Tensor]
    vector_losses: dict[str, Tensor]  # this rank's part of each
    vector_gradients: dict[str, Sequence[Tensor]]  # of each loss, for each micro-batch


def backward(
    objective: Objective,
    micro_batches: Sequence[MicroBatch],
    make_views: Callable[[MicroBatch], tuple[Batch, Tensor]],
    progress: float,
    ranks: Collectives,
    *,
    autocast: Callable[[], torch.autocast],
    scale_loss: Callable[[Tensor], Tensor],
) -> Losses:
    """Add this rank's part of the gradient to the parameters, at this progress of the run.

    `make_views` gives the batch and the augmented images of a micro-batch, and `scale_loss`
    multiplies the loss before its backward pass.
    """
    passes = _forward_passes(objective, micro_batches, make_views, autocast)
    if len(micro_batches) == 1:
        only = next(passes)
        whole, passes = _batch_statistics(objective, [only], ranks), iter([only])
    else:
        whole = _batch_statistics(
            objective,
            list(
                _forward_passes(objective.forward_statistics, micro_batches, make_views, autocast)
            ),
            ranks,
        )
    weights = objective.term_weights(progress)
    sums: dict[str, Tensor] = {}
    teacher_sums: dict[str, Tensor] = {}
    for index, outputs in enumerate(passes):
        means = {name: value / whole.counts[name] for name, value in outputs.sums.items()}
        loss = sum((weights[name] * mean for name, mean in means.items()), torch.tensor(0.0))
        for name, vectors in outputs.vectors.items():
            gradient = whole.vector_gradients[name][index]
            loss = loss + weights[name] * (vectors.float() * gradient).sum()
        scale_loss(loss).backward()
        for name, mean in means.items():
            sums[name] = sums.get(name, 0) + mean.detach()
        for name, total in outputs.teacher_sums.items():
            teacher_sums[name] = teacher_sums.get(name, 0) + total
    sums |= whole.vector_losses
    return Losses(
        torch.stack([weights[name] * sums[name] for name in sums]).sum(),
        sums,
        {name: ranks.sum(total) / whole.counts[name] for name, total in teacher_sums.items()},
    )


def _forward_passes(
    forward: Callable[[Batch, Tensor], TermOutputs],
    micro_batches: Sequence[MicroBatch],
    make_views: Callable[[MicroBatch], tuple[Batch, Tensor]],
    autocast: Callable[[], torch.autocast],
) -> Iterator[TermOutputs]:
    """Yield the outputs of every micro-batch in turn."""
    for part in micro_batches:
        batch, images = make_views(part)
        with autocast():
            outputs = forward(batch, images)
        yield outputs


def _batch_statistics(
    objective: Objective, outputs: Sequence[TermOutputs], ranks: Collectives
) -> _BatchStatistics:
    counts = _batch_counts(outputs, ranks)
    if not objective.trained_vector_terms:
        return _BatchStatistics(counts, {}, {})
    own = concatenate_metadata([part.metadata for part in outputs])
    parts = (own.subject, own.features, own.second_features, own.number)
    metadata = TermMetadata(*(ranks.gather(part) for part in parts))
    losses: dict[str, Tensor] = {}
    gradients: dict[str, Sequence[Tensor]] = {}
    for term in objective.trained_vector_terms:
        vectors = [part.vectors[term.name].detach().float().requires_grad_() for part in outputs]
        first, second = (
            torch.cat(halves) for halves in zip(*(v.chunk(2) for v in vectors), strict=True)
        )
        loss = objective.vector_loss(term, ranks.gather(first), ranks.gather(second), metadata)
        gradients[term.name] = torch.autograd.grad(loss, vectors)
        losses[term.name] = loss.detach() * len(first) / len(metadata.subject)
    return _BatchStatistics(counts, losses, gradients)


def _batch_counts(outputs: Sequence[TermOutputs], ranks: Collectives) -> dict[str, Tensor]:
    """The counts of the summed terms over the whole batch, at least 1."""
    names = list(outputs[0].counts)
    if not names:
        return {}
    own = torch.stack([torch.stack([part.counts[name] for name in names]) for part in outputs])
    return dict(zip(names, ranks.sum(own.sum(0)).clamp(min=1), strict=True))
