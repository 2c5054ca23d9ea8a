"""The losses against lightly where they coincide, and against known truths where they do not."""

import math

import ssl_pipeline.torchvision_compat  # noqa: F401

import pytest
import torch
from lightly.loss import DCLLoss, DINOLoss, IBOTPatchLoss, LeJEPALoss, NTXentLoss
from lightly.models.modules.heads import DINOProjectionHead
from torch.nn.functional import normalize

from ssl_pipeline.models.heads import PrototypeHead
from ssl_pipeline.objectives.losses import (
    distillation_loss,
    local_contrast_loss,
    masked_huber,
    match_tokens,
    patch_statistics,
    reconstruction_skill,
    subject_contrast_chance,
    subject_contrast_loss,
)
from ssl_pipeline.objectives.term_inputs import TermMetadata
from ssl_pipeline.objectives.terms.lejepa import Lejepa
from ssl_pipeline.views.rng import rng_key


def contrast(first, second, subject, temperature, traits=None):
    """The loss between subjects of whom nothing is known, unless it is."""
    traits = torch.zeros(len(subject), 0) if traits is None else traits
    return subject_contrast_loss(first, second, subject, traits, temperature)


def test_all_subjects_different_is_lightlys_decoupled_loss():
    torch.manual_seed(0)
    first, second = torch.randn(2, 6, 16)
    ours = contrast(first, second, torch.arange(6), 0.1)
    # lightly averages over both directions; its negatives are those of both views, as ours.
    theirs = DCLLoss(temperature=0.1)(first, second)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-4)


def test_a_view_of_the_same_subject_is_no_negative():
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 8)
    subject = torch.tensor([0, 0, 1, 2])
    moved = first.clone()
    moved[1] += 5  # only a negative of samples 2 and 3 and itself an anchor
    before = contrast(first[:1].repeat(2, 1), second[:1].repeat(2, 1), subject[:2], 0.1)
    assert before.item() == 0  # one subject alone: nothing to tell apart
    a = contrast(first, second, subject, 0.1)
    b = contrast(moved, second, subject, 0.1)
    assert a.item() != pytest.approx(b.item())


def test_subjects_count_less_as_negatives_the_more_alike_they_are():
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, 8)
    subject = torch.arange(3)
    cosine = normalize(torch.cat([first, second]), dim=1)
    pull = (cosine @ cosine.T / 0.1).exp()
    traits = torch.tensor([[0.0], [1.0], [math.nan]])  # a width apart; nothing known of the last
    less = 1 - math.exp(-0.5)
    weight = torch.tensor([[0, less, 1], [less, 0, 1], [1, 1, 0]]).tile(2, 2)
    expected = (pull * weight).sum(dim=1).log().mean() - pull[:3, 3:].diagonal().log().mean()
    found = contrast(first, second, subject, 0.1, traits)
    assert found.item() == pytest.approx(expected.item(), abs=1e-4)
    equal = contrast(first, second, subject, 0.1, torch.zeros(3, 1))
    assert equal.item() == 0, "all are the same: no negative is left"
    one = contrast(first, second, torch.tensor([0, 0, 1]), 0.1)
    same = contrast(first, second, subject, 0.1, torch.tensor([[0.0], [0], [1000]]))
    assert same.item() == pytest.approx(one.item()), "the same is as one subject"


@pytest.mark.parametrize("traits", [torch.zeros(4, 0), torch.tensor([[0.0], [0.3], [0.3], [9]])])
def test_loss_between_subjects_has_right_gradients(traits):
    torch.manual_seed(0)
    first = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    second = torch.randn(4, 5, dtype=torch.float64)
    subject = torch.tensor([0, 1, 1, 2])
    loss = contrast(first, second, subject, 0.5, traits)
    (gradient,) = torch.autograd.grad(loss, first)
    step = torch.randn_like(first)
    eps = 1e-3
    with torch.no_grad():
        up = contrast(first + eps * step, second, subject, 0.5, traits)
        down = contrast(first - eps * step, second, subject, 0.5, traits)
    slope = ((up - down) / (2 * eps)).item()
    assert slope == pytest.approx((gradient * step).sum().item(), abs=1e-3)


def test_subjects_without_negatives_leave_no_gradient():
    first, second = torch.randn(2, 2, 5).requires_grad_()
    loss = contrast(first, second, torch.tensor([0, 0]), 0.5)
    assert torch.autograd.grad(loss, first)[0].abs().max() == 0


def test_perfect_places_cost_little_and_random_ones_cost_chance():
    distance = torch.tensor([[[0.0, 5, 5, 5], [5, 0, 5, 5], [5, 5, 0, 5], [5, 5, 5, 0]]])
    found = match_tokens(distance, positive=1.5, negative=2.0)
    assert found.is_usable.all()
    perfect = torch.eye(4)[None]
    assert local_contrast_loss(perfect, perfect, found, 0.1).item() / 4 < 0.001
    constant = torch.ones(1, 4, 4)
    chance = local_contrast_loss(constant, constant, found, 0.1) / 4
    assert chance.item() == pytest.approx(math.log(4), abs=1e-5)


def test_where_all_others_are_negatives_the_loss_of_places_is_lightlys():
    torch.manual_seed(0)
    first, second = torch.randn(2, 1, 6, 16)
    found = match_tokens(5.0 * (1 - torch.eye(6))[None], positive=1.5, negative=2.0)
    ours = local_contrast_loss(first, second, found, 0.2) / 6
    queue = NTXentLoss(temperature=0.2, memory_bank_size=(6, 16))
    # lightly's negatives are those of its memory: filled with the others of each anchor in turn.
    theirs = []
    for index in range(6):
        others = [other for other in range(6) if other != index]
        queue.memory_bank.bank = normalize(second[0, others], dim=1)
        queue.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
        with torch.no_grad():
            theirs.append(queue(first[0, index : index + 1], second[0, index : index + 1]))
    assert ours.item() == pytest.approx(torch.stack(theirs).mean().item(), abs=1e-4)


def test_loss_between_places_has_right_gradients():
    torch.manual_seed(0)
    distance = torch.rand(2, 5, 5, dtype=torch.float64) * 4
    found = match_tokens(distance, positive=1.5, negative=2.0)
    assert found.is_usable.any() and not found.is_usable.all()
    anchor = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    other = torch.randn(2, 5, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(local_contrast_loss(anchor, other, found, 0.5), anchor)
    step, eps = torch.randn_like(anchor), 1e-3
    with torch.no_grad():
        up = local_contrast_loss(anchor + eps * step, other, found, 0.5)
        down = local_contrast_loss(anchor - eps * step, other, found, 0.5)
    assert ((up - down) / (2 * eps)).item() == pytest.approx(
        (gradient * step).sum().item(), abs=2e-3
    )


def test_places_without_a_partner_count_nothing():
    found = match_tokens(torch.full((1, 3, 3), 5.0), positive=1.5, negative=2.0)
    tokens = torch.randn(1, 3, 8, requires_grad=True)
    loss = local_contrast_loss(tokens, tokens, found, 0.1)
    assert loss.item() == 0 and not found.is_usable.any()
    loss.backward()
    assert torch.isfinite(tokens.grad).all()


def test_reconstruction_ignores_weightless_voxels_and_survives_none():
    pred = torch.zeros(1, 2, 4)
    target = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [100.0, 100, 100, 100]]])
    weight = torch.tensor([[[1.0] * 4, [0.0] * 4]])
    assert masked_huber(pred, target, weight).item() / 4 == pytest.approx(0.125)
    assert masked_huber(pred, target, torch.zeros_like(weight)).item() == 0


def test_a_patch_is_measured_about_its_own_valid_voxels():
    voxels = torch.tensor([[[1.0, 3.0, 99.0], [5.0, 5.0, 5.0]]])
    mean, unit = patch_statistics(voxels, torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]]))
    assert torch.allclose(mean, torch.tensor([[[2.0], [5.0]]]))
    assert torch.allclose(unit, torch.tensor([[[math.sqrt(1.01)], [0.1]]]))  # flat: noise is small


def test_skill_is_one_for_truth_zero_for_the_baseline_and_below_for_worse():
    torch.manual_seed(0)
    clean = torch.randn(2, 1, 4, 4, 4)
    filled, weight = clean + 0.5, torch.ones_like(clean)
    assert reconstruction_skill(clean, filled, clean, weight) == 1
    assert reconstruction_skill(filled, filled, clean, weight) == 0
    assert reconstruction_skill(clean - 0.9, filled, clean, weight) == pytest.approx(
        1 - 0.9**2 / 0.5**2, abs=1e-4
    )


def test_skill_counts_weighted_voxels_alone():
    clean = torch.zeros(1, 1, 2, 2, 2)
    weight = torch.zeros_like(clean)
    weight[..., 0] = 1
    rebuilt = torch.full_like(clean, 0.1)
    rebuilt[..., 1] = 9
    filled = torch.full_like(clean, 0.2)
    assert reconstruction_skill(rebuilt, filled, clean, weight) == pytest.approx(0.75)
    assert math.isnan(reconstruction_skill(rebuilt, filled, clean, torch.zeros_like(clean)))


def chance(subject: torch.Tensor) -> float:
    """Of subjects of whom nothing is known."""
    return subject_contrast_chance(subject, torch.zeros(len(subject), 0))


def test_chance_between_subjects_is_the_log_of_the_negatives():
    assert chance(torch.arange(8)) == pytest.approx(math.log(14))
    assert chance(torch.tensor([0, 0, 1])) == pytest.approx((4 * math.log(2) + 2 * math.log(4)) / 6)
    assert chance(torch.tensor([5, 5])) == 0
    half_alike = torch.tensor([[0.0], [math.sqrt(2 * math.log(2))]])
    assert subject_contrast_chance(torch.arange(2), half_alike) == pytest.approx(math.log(2 * 0.5))


def test_two_views_of_crops_are_distilled_as_by_lightly():
    torch.manual_seed(0)
    teacher, student, center = torch.randn(2, 5, 16), torch.randn(2, 5, 16), torch.randn(16)
    theirs = DINOLoss(16, student_temp=0.2)
    theirs.center = center[None, None]
    expected = theirs(list(teacher), list(student), teacher_temp=0.07)
    targets = ((teacher.flip(0).flatten(0, 1) - center) / 0.07).softmax(-1)
    ours = distillation_loss(student.flatten(0, 1), targets, torch.ones(10), 0.2) / 10
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


def test_hidden_patches_are_distilled_as_by_lightly():
    """Its mask has two axes a crop: of one of three it would weigh a part of the rows."""
    torch.manual_seed(0)
    teacher, student, center = torch.randn(2, 6, 16), torch.randn(2, 6, 16), torch.randn(16)
    theirs = IBOTPatchLoss(16, student_temp=0.2)
    theirs.center.center = center[None]
    mask = torch.zeros(2, 3, 2, 2, dtype=torch.bool)
    mask[:, :2, :, 0] = mask[:, 0, 0, 1] = mask[:, 2, 1, 1] = True  # 6 hidden patches a crop
    expected = theirs(
        teacher.flatten(0, 1), student.flatten(0, 1), mask.flatten(1, 2), teacher_temp=0.07
    )
    targets = ((teacher.flatten(0, 1) - center) / 0.07).softmax(-1)
    ours = distillation_loss(student.flatten(0, 1), targets, torch.ones(12), 0.2) / 12
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


def lejepa(first, second, number=0):
    """The loss of samples that are numbered from `number` on."""
    count = len(first)
    who, traits = torch.arange(count), torch.zeros(count, 0)
    return Lejepa().loss(first, second, TermMetadata(who, traits, traits, who + number))


def test_the_loss_without_negatives_is_lightlys_and_draws_by_the_samples():
    torch.manual_seed(0)
    first, second = torch.randn(2, 32, 16)
    drawn = torch.get_rng_state()
    ours = lejepa(first, second)
    assert torch.equal(torch.get_rng_state(), drawn)  # what others draw does not change
    assert lejepa(first, second).item() == ours.item() != lejepa(first, second, 32).item()
    both = torch.stack([first, second])
    torch.manual_seed(rng_key(0, 0, "directions") % 2**63)
    sigreg = LeJEPALoss().sigreg(both)
    invariance = ((first - second) / 2).square().mean()
    assert ours.item() == pytest.approx((0.95 * invariance + 0.05 * sigreg).item(), rel=1e-5)


@pytest.mark.parametrize(("samples", "is_better"), [(2, True), (32, False)])
def test_equal_embeddings_are_good_without_negatives_where_samples_are_few(samples, is_better):
    torch.manual_seed(0)
    gauss, equal = torch.randn(samples, 64), torch.zeros(samples, 64)
    assert (lejepa(equal, equal).item() < lejepa(gauss, gauss).item()) == is_better


def test_rows_without_weight_are_not_distilled():
    student, targets = torch.zeros(2, 4), torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]])
    loss = distillation_loss(student, targets, torch.tensor([1.0, 0.0]), 0.1)
    assert loss.item() == pytest.approx(math.log(4))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_head_of_prototypes_is_lightlys():
    torch.manual_seed(0)
    ours, theirs = PrototypeHead(8, 16, 32), DINOProjectionHead(8, 32, 16, 32)
    theirs.layers.load_state_dict(ours.layers.state_dict())
    theirs.last_layer.weight_v.data = ours.prototypes.data
    rows = torch.randn(3, 8)
    assert torch.allclose(ours(rows), theirs(rows), atol=1e-6)
