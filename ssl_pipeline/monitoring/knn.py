"""What embeddings tell of a place, asked of its nearest neighbours and of no label.

Where in the body a crop lies, which sequence and which site it comes from are known without any
annotation, so they can be asked while a run goes on. Neighbours need no training and no dial that
matters. A subject is never its own neighbour: two crops of one scan share noise and table. Cosines
are taken about the mean, for pooled tokens share a large common part.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

# Caron et al. 2021 (arXiv:2104.14294); Wu et al. 2018 (arXiv:1805.01978)
NEIGHBOURS, TEMPERATURE = 20, 0.07


@dataclass(frozen=True)
class ScoreWithChance:
    """A score beside what guessing reaches; both nan where the question makes no sense."""

    score: float
    chance: float


UNDEFINED_SCORE = ScoreWithChance(math.nan, math.nan)


def knn_accuracy(
    vectors: Float[Tensor, "places dim"],
    label: Int[Tensor, " places"],
    subject: Int[Tensor, " places"],
) -> ScoreWithChance:
    """Mean over classes of the share of places whose neighbours vote for the right class.

    Labels count from 0. A class that a single subject has cannot be found among others and is left
    out, as a question and as an answer; nan where fewer than two classes remain.
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
    vectors: Float[Tensor, "places dim"],
    target: Float[Tensor, "places targets"],
    subject: Int[Tensor, " places"],
) -> float:
    """How well neighbours tell numbers: 1 - SS_error / SS_total, the mean over targets.

    1 is perfect, 0 no better than the mean of all places. A target that is constant is left out;
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
    vectors: Float[Tensor, "places dim"], subject: Int[Tensor, " places"]
) -> ScoreWithChance:
    """How often another place of a subject is nearer than a place of another subject.

    The mean over pairs of places of one subject, ties counting half; chance is 0.5. Below it,
    places of one subject have been pushed apart, as where they are taken for negatives. nan where
    no subject has two places or all places are of one.
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
    values: Float[Tensor, " places"], group: Int[Tensor, " places"], bins: int
) -> Int[Tensor, " places"]:
    """Which of `bins` equally full bins of its own group a value falls into, from 0.

    With the height of a crop in its scan as value and the root as group: its body region, for a
    root's scans show much the same part of the body. Equal values share a bin.
    """
    same = group[:, None] == group[None, :]
    below = (same & (values[None, :] < values[:, None])).sum(dim=1)
    return below * bins // same.sum(dim=1)


def _in_several_subjects(label: Tensor, subject: Tensor) -> Bool[Tensor, " places"]:
    same_label = label[:, None] == label[None, :]
    return (same_label & (subject[:, None] != subject[None, :])).any(dim=1)


def _cosines(vectors: Tensor) -> Float[Tensor, "places places"]:
    """Cosines about the mean."""
    centred = vectors.double() - vectors.double().mean(dim=0)
    unit = normalize(centred, dim=1)
    return unit @ unit.T


def _neighbour_weights(vectors: Tensor, subject: Tensor) -> Float[Tensor, "places places"]:
    """Row by row, how much each place of another subject has a say; every row sums to 1."""
    similar = _cosines(vectors).masked_fill(subject[:, None] == subject[None, :], -torch.inf)
    near, index = similar.topk(min(NEIGHBOURS, len(subject)), dim=1)
    votes = (near / TEMPERATURE).softmax(dim=1)
    return torch.zeros_like(similar).scatter(1, index, votes)
