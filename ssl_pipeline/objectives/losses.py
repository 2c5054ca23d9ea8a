"""The losses and their baselines, each a plain function with its equation and source.

lightly has decoupled contrastive losses too, but none that leaves out negatives of the same
subject; the test holds ours against lightly's where all subjects differ.

Means over voxels or tokens are returned as sums: a batch may be divided over ranks and
micro-batches, and only the count of the whole batch makes a mean of their sums.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import huber_loss, normalize


def masked_huber(
    pred: Float[Tensor, "batch patches voxels"],
    target: Float[Tensor, "batch patches voxels"],
    weight: Float[Tensor, "batch patches voxels"],
    delta: float = 1.0,
) -> Float[Tensor, ""]:
    """Weighted sum of Huber losses; weight is 0 where a voxel is padded or anonymised.

    Intensities in units of the model's input, or of `patch_statistics`. Source: He et al. 2022
    (arXiv:2111.06377), sec. 3, with Huber for the squared error, and raw targets by default.
    """
    return (huber_loss(pred, target, reduction="none", delta=delta) * weight).sum()


def patch_statistics(
    voxels: Float[Tensor, "batch patches voxels"],
    valid: Float[Tensor, "batch patches voxels"],
    min_std: float = 0.1,
) -> tuple[Float[Tensor, "batch patches 1"], Float[Tensor, "batch patches 1"]]:
    """Mean and softened deviation, sqrt(var + min_std^2), of the valid voxels of each patch.

    Units are those of the model's input, and `min_std` keeps the noise of air small. Source: He et
    al. 2022 (arXiv:2111.06377), "normalised pixels", with a floor.
    """
    count = valid.sum(dim=-1, keepdim=True).clamp(min=1)
    mean = (voxels * valid).sum(dim=-1, keepdim=True) / count
    spread = ((voxels - mean) ** 2 * valid).sum(dim=-1, keepdim=True) / count
    return mean, (spread + min_std**2).sqrt()


def reconstruction_skill(
    reconstruction: Float[Tensor, "batch 1 z y x"],
    inpainted: Float[Tensor, "batch 1 z y x"],
    clean: Float[Tensor, "batch 1 z y x"],
    weight: Float[Tensor, "batch 1 z y x"],
) -> float:
    """Share of the in-painting's error that the model saves: 1 - L_model / L_inpaint.

    1 is perfect, 0 no better than in-painting, below 0 worse. L is the loss of masked
    reconstruction (`masked_huber`); `weight` is 1 in hidden, valid voxels of the body, 0
    elsewhere. nan where nothing has weight or in-painting makes no error. Source: the skill score
    of Murphy 1988 (Mon. Weather Rev. 116).
    """
    target, counted = clean.flatten(2), weight.flatten(2)
    model = masked_huber(reconstruction.flatten(2).float(), target, counted).item()
    baseline = masked_huber(inpainted.flatten(2), target, counted).item()
    return 1 - model / baseline if baseline > 0 else math.nan


def distillation_loss(
    student: Float[Tensor, "rows prototypes"],
    targets: Float[Tensor, "rows prototypes"],
    weight: Float[Tensor, " rows"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Weighted sum of cross-entropies - sum_k q_k log softmax(student / t)_k, q the targets.

    Source: Caron et al. 2021 (arXiv:2104.14294), eq. 2. lightly's losses for crops and patches are
    means with a centre of their own, which parts of a batch would move; the test holds ours against
    them.
    """
    return -((targets * (student / temperature).log_softmax(dim=-1)).sum(dim=-1) * weight).sum()


def subject_contrast_loss(
    first: Float[Tensor, "samples dim"],
    second: Float[Tensor, "samples dim"],
    subject: Int[Tensor, " samples"],
    metadata_features: Float[Tensor, "samples features"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Decoupled InfoNCE between views, with other subjects alone as negatives.

    L = mean over views z of  -<z, z+>/t + log sum_{n of another subject} a_zn exp(<z, n>/t), where
    a is 1 - `metadata_similarity` of the two, and 1 where there are no features; a view without
    any negative counts nothing. Source: Yeh et al. 2022 (arXiv:2110.06848), eq. 6; the
    kernel of metadata after Dufumier et al. 2021 (arXiv:2106.08808), who draw positives by it.
    """
    both = normalize(torch.cat([first, second]).float(), dim=1)
    who = torch.cat([subject, subject])
    similar = both @ both.T / temperature
    negative = who[:, None] != who[None, :]
    positive = torch.cat([similar.diagonal(len(first)), similar.diagonal(-len(first))])
    if metadata_features.shape[1]:
        weight = (1 - metadata_similarity(metadata_features)).tile(2, 2)
        similar, negative = similar + weight.log(), negative & (weight > 0)
    against = similar.masked_fill(~negative, -torch.inf).logsumexp(dim=1)
    usable = negative.any(dim=1)
    each = torch.where(usable, against.masked_fill(~usable, 0) - positive, 0)
    return each.sum() / usable.sum().clamp(min=1)


def subject_contrast_chance(
    subject: Int[Tensor, " samples"], metadata_features: Float[Tensor, "samples features"]
) -> float:
    """The loss between subjects (`subject_contrast_loss`) where all vectors are equal.

    The mean over views of log(views of other subjects): log(2 B - 2) for B different subjects.
    """
    equal = torch.zeros(len(subject), 1, device=subject.device)
    return subject_contrast_loss(equal, equal, subject, metadata_features, temperature=1.0).item()


def metadata_similarity(
    metadata_features: Float[Tensor, "samples features"],
) -> Float[Tensor, "samples samples"]:
    """exp(-d^2 / 2), d the distance of two rows of one feature or more; 0 where one is missing.

    So two subjects are at most as similar as in the feature in which they differ most.
    """
    apart = (metadata_features[:, None] - metadata_features[None, :]).square().sum(dim=-1)
    return (-apart / 2).exp().nan_to_num(0)


@dataclass(frozen=True)
class TokenMatches:
    """The tokens of the other view that are an anchor's positive and negatives."""

    positive_index: Int[Tensor, "samples visible"]
    is_negative: Bool[Tensor, "samples visible visible"]
    is_usable: Bool[Tensor, "samples visible"]  # whether an anchor has a positive and a negative


def match_tokens(
    distance: Float[Tensor, "samples visible visible"], *, positive: float, negative: float
) -> TokenMatches:
    """The nearest token within `positive` patches, and all that are farther than `negative`.

    `distance` is Chebyshev's, in patches, from the anchors (rows) to the other view's tokens.
    """
    nearest, match = distance.min(dim=2)
    far = distance > negative
    return TokenMatches(match, far, (nearest <= positive) & far.any(dim=2))


def match_accuracy(
    anchor: Float[Tensor, "samples visible dim"],
    other: Float[Tensor, "samples visible dim"],
    matches: TokenMatches,
) -> float:
    """Fraction of usable anchors whose positive is more similar than every negative; else nan."""
    similar = _token_cosines(anchor, other)
    hit = similar.gather(2, matches.positive_index[..., None])[..., 0]
    apart = similar.masked_fill(~matches.is_negative, -torch.inf).amax(dim=2)
    return (hit > apart)[matches.is_usable].float().mean().item()


def _token_cosines(anchor: Tensor, other: Tensor) -> Float[Tensor, "samples visible visible"]:
    with torch.autocast(anchor.device.type, enabled=False):  # which would round them
        return torch.einsum(
            "pad,pbd->pab", normalize(anchor.float(), dim=-1), normalize(other.float(), dim=-1)
        )


def local_contrast_loss(
    anchor: Float[Tensor, "samples visible dim"],
    other: Float[Tensor, "samples visible dim"],
    matches: TokenMatches,
    temperature: float,
) -> Float[Tensor, ""]:
    """Sum of InfoNCE between tokens (or points) of two views of a scan over the usable anchors.

    L = -log e^{<a, a+>/t} / (e^{<a, a+>/t} + sum_n e^{<a, n>/t}). Negatives of the same scan need
    no large batch and share scanner and contrast, so intensity is no shortcut (after Pai et al.
    2025, CT-FM, whose negatives are crops of one scan).
    """
    similar = _token_cosines(anchor, other) / temperature
    hit = similar.gather(2, matches.positive_index[..., None])
    apart = similar.masked_fill(~matches.is_negative, -torch.inf)
    against = torch.cat([hit, apart], dim=2).logsumexp(dim=2)
    return torch.where(matches.is_usable, against - hit[..., 0], 0).sum()
