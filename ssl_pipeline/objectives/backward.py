"""Gradient of a step over its whole batch, divided over ranks and micro-batches.

Terms that are means over voxels or tokens are sums divided by the counts of the WHOLE batch, so the
gradients of its parts only have to be added. The term between subjects contrasts all vectors of the
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

from ssl_pipeline.objectives.losses import subject_contrast_loss
from ssl_pipeline.objectives.objective import Objective, TermOutputs
from ssl_pipeline.views.crops import Batch

MicroBatch = TypeVar("MicroBatch")


@dataclass(frozen=True)
class Losses:
    """One rank's part of the losses of a step, detached: the sum over ranks is the batch's."""

    total: Tensor
    by_term: dict[str, Tensor]  # by term, without their weights


@runtime_checkable
class Collectives(Protocol):
    """Collective operations of the ranks that share a batch."""

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks."""

    def gather(self, values: Tensor) -> Tensor:
        """The rows of all ranks, in their order; this rank's own carry gradient."""


@dataclass(frozen=True)
class _BatchStatistics:
    """Statistics of the whole batch that its micro-batches need."""

    counts: dict[str, Tensor]
    subject_loss: Tensor | None  # this rank's part of the loss between subjects
    vector_gradients: Sequence[Tensor | None]  # of that loss, for each micro-batch


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
    for outputs, gradient in zip(passes, whole.vector_gradients, strict=True):
        means = {name: value / whole.counts[name] for name, value in outputs.sums.items()}
        loss = sum((weights[name] * mean for name, mean in means.items()), torch.tensor(0.0))
        if outputs.vectors is not None and gradient is not None:
            loss = loss + weights["subject_contrast"] * (outputs.vectors.float() * gradient).sum()
        scale_loss(loss).backward()
        for name, mean in means.items():
            sums[name] = sums.get(name, 0) + mean.detach()
    if whole.subject_loss is not None:
        sums["subject_contrast"] = whole.subject_loss
    return Losses(torch.stack([weights[name] * sums[name] for name in sums]).sum(), sums)


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
    names = list(outputs[0].counts)
    counts = {}
    if names:
        each = [torch.stack([part.counts[name] for name in names]) for part in outputs]
        own = torch.stack(each).sum(0)
        counts = dict(zip(names, ranks.sum(own).clamp(min=1), strict=True))
    vectors = [
        p.vectors.detach().float().requires_grad_() for p in outputs if p.vectors is not None
    ]
    if not vectors:
        return _BatchStatistics(counts, None, [None] * len(outputs))
    assert objective.contrast is not None
    first, second = (
        torch.cat(halves) for halves in zip(*(v.chunk(2) for v in vectors), strict=True)
    )
    subject = ranks.gather(torch.cat([part.subject for part in outputs]))
    features = ranks.gather(torch.cat([part.metadata_features for part in outputs]))
    temperature = objective.contrast.temperature
    loss = subject_contrast_loss(
        ranks.gather(first), ranks.gather(second), subject, features, temperature
    )
    gradients = torch.autograd.grad(loss, vectors)
    return _BatchStatistics(counts, loss.detach() * len(first) / len(subject), gradients)
