"""kNN scores of embeddings on metadata: region, position, modality, site, subject.

Where in the body a crop lies, its modality and its site are known without any annotation, so they
can be predicted during a run. Neighbours need no training and no setting that matters. A subject is
never its own neighbour: two crops of one scan share noise and table. Cosines are taken about the
mean, for pooled tokens share a large common part.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ssl_pipeline.monitoring.config import NEIGHBOURS, TEMPERATURE


@dataclass(frozen=True)
class ScoreWithChance:
    """A score and that of guessing; both nan where undefined."""

    score: float
    chance: float


UNDEFINED_SCORE = ScoreWithChance(math.nan, math.nan)


def nearest_votes(
    similarity: Float[Tensor, "queries candidates"], neighbours: int, temperature: float
) -> tuple[Float[Tensor, "queries nearest"], Int[Tensor, "queries nearest"]]:
    """Votes of the nearest candidates of each query, which sum to 1, and their indices.

    A vote is proportional to exp(similarity / temperature); of equal candidates the first is
    nearest.
    """
    near, index = similarity.sort(dim=1, descending=True, stable=True)
    return (near[:, :neighbours] / temperature).softmax(dim=1), index[:, :neighbours]


def knn_accuracy(
    vectors: Float[Tensor, "samples dim"],
    label: Int[Tensor, " samples"],
    subject: Int[Tensor, " samples"],
) -> ScoreWithChance:
    """Mean over classes of the fraction of samples whose neighbours vote for the right class.

    Labels count from 0. A class that a single subject has cannot be found among others and is left
    out, of queries and of neighbours; nan where fewer than two classes remain.
    """
    findable = _in_several_subjects(label, subject)
    vectors, label, subject = vectors[findable], label[findable], subject[findable]
    classes = label.unique()
    if len(classes) < 2:
        return UNDEFINED_SCORE
    weight = _neighbour_weights(vectors, subject)
    right = (weight @ one_hot(label).to(weight)).argmax(dim=1) == label
    recall = torch.stack([right[label == each].float().mean() for each in classes])
    return ScoreWithChance(recall.mean().item(), 1 / len(classes))


def knn_r2(
    vectors: Float[Tensor, "samples dim"],
    target: Float[Tensor, "samples targets"],
    subject: Int[Tensor, " samples"],
) -> float:
    """How well neighbours predict numbers: 1 - SS_error / SS_total, the mean over targets.

    1 is perfect, 0 no better than the mean of all samples. A target that is constant is left out;
    nan where none is left or a subject stands alone.
    """
    deviation = target.double() - target.double().mean(dim=0)
    total = deviation.square().sum(dim=0)
    varies = (target != target[:1]).any(dim=0)
    if not varies.any() or len(subject.unique()) < 2:
        return math.nan
    error = (deviation - _neighbour_weights(vectors, subject) @ deviation).square().sum(dim=0)
    return (1 - error[varies] / total[varies]).mean().item()


def same_subject_auc(
    vectors: Float[Tensor, "samples dim"], subject: Int[Tensor, " samples"]
) -> ScoreWithChance:
    """How often another sample of a subject is nearer than a sample of another subject.

    The mean over pairs of samples of one subject, ties counting half; chance is 0.5. Below it,
    samples of one subject have been pushed apart, as where they are negatives. nan where no subject
    has two samples or all samples are of one.
    """
    similar = _cosines(vectors)
    others = subject[:, None] != subject[None, :]
    same = ~others & ~torch.eye(len(subject), dtype=torch.bool, device=subject.device)
    anchor, mate = same.nonzero(as_tuple=True)
    if not len(anchor) or not others.any():
        return UNDEFINED_SCORE
    nearer = similar[anchor, mate][:, None] - similar[anchor]
    won = torch.heaviside(nearer, torch.tensor(0.5).to(nearer))
    counted = others[anchor]
    return ScoreWithChance(((won * counted).sum(dim=1) / counted.sum(dim=1)).mean().item(), 0.5)


def quantile_bins(
    values: Float[Tensor, " samples"], group: Int[Tensor, " samples"], bins: int
) -> Int[Tensor, " samples"]:
    """Which of `bins` equally full bins of its own group a value falls into, from 0.

    With the height of a crop in its scan as value and the root as group: its body region, for a
    root's scans show much the same part of the body. Equal values share a bin.
    """
    same = group[:, None] == group[None, :]
    below = (same & (values[None, :] < values[:, None])).sum(dim=1)
    return below * bins // same.sum(dim=1)


def _in_several_subjects(label: Tensor, subject: Tensor) -> Bool[Tensor, " samples"]:
    same_label = label[:, None] == label[None, :]
    return (same_label & (subject[:, None] != subject[None, :])).any(dim=1)


def _cosines(vectors: Tensor) -> Float[Tensor, "samples samples"]:
    """Cosines about the mean."""
    centred = vectors.double() - vectors.double().mean(dim=0)
    unit = normalize(centred, dim=1)
    return unit @ unit.T


def _neighbour_weights(vectors: Tensor, subject: Tensor) -> Float[Tensor, "samples samples"]:
    """Row by row, the vote of each sample of another subject; every row sums to 1."""
    similar = _cosines(vectors).masked_fill(subject[:, None] == subject[None, :], -torch.inf)
    votes, nearest = nearest_votes(similar, NEIGHBOURS, TEMPERATURE)
    return torch.zeros_like(similar).scatter(1, nearest, votes)
