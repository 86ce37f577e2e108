"""Head, tail and their weights, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from snnkd_deploy.distill import create
from snnkd_deploy.distill.hta_kl import head_mask, head_tail_kl, head_weight
from tests.distill.setups import batch, pair


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def kl(p: Tensor, q: Tensor) -> float:
    return float((p * (p / q).log()).sum())


P, Q = row(0.2, 0.6, 0.15, 0.05), row(0.3, 0.2, 0.4, 0.1)  # gaps 0.1, 0.4, 0.25, 0.05


@pytest.mark.parametrize(
    ("share", "head"),
    [(0.5, [True, False, False, False]), (0.6001, [True, True, False, False]), (1.0, [True, True, True, True])],
)
def test_the_head_holds_the_classes_ahead_of_which_less_than_the_share_lies(share: float, head: list[bool]) -> None:
    assert head_mask(row(0.6, 0.2, 0.15, 0.05), share).tolist() == [head]


def test_the_likeliest_class_is_head_however_sure_the_teacher_is() -> None:
    assert head_mask(row(0.999, 0.001), 0.5).tolist() == [[True, False]]


def test_the_weight_is_the_share_of_the_head_in_the_gap() -> None:
    assert head_weight(Q, P, 0.5).item() == pytest.approx(0.4 / 0.8)
    assert head_weight(Q, P, 0.7).item() == pytest.approx(0.5 / 0.8)


def test_the_divergence_mixes_both_directions_by_the_weight() -> None:
    found = head_tail_kl(Q.log(), P.log(), 1, 0.5).item()
    assert found == pytest.approx(0.5 * kl(P, Q) + 0.5 * kl(Q, P))


def test_the_temperature_divides_the_logits_and_its_square_multiplies_the_loss() -> None:
    assert head_tail_kl(2 * Q.log(), 2 * P.log(), 2, 0.5).item() == pytest.approx(
        4 * head_tail_kl(Q.log(), P.log(), 1, 0.5).item()
    )


def test_equal_logits_cost_nothing() -> None:
    logits = torch.randn(8, 10, requires_grad=True)
    loss = head_tail_kl(logits, logits.detach(), 3, 0.5)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(loss, logits)[0].abs().max().item() == pytest.approx(0, abs=1e-6)


def test_the_weights_carry_no_gradient() -> None:
    student = Q.log().requires_grad_()
    (slope,) = torch.autograd.grad(head_tail_kl(student, P.log(), 1, 0.5), student)
    fixed = Q.log().requires_grad_()
    q = fixed.softmax(1)
    by_hand = 0.5 * (P * (P / q).log()).sum() + 0.5 * (q * (q / P).log()).sum()
    torch.testing.assert_close(slope, torch.autograd.grad(by_hand, fixed)[0])


def test_a_teacher_that_excludes_classes_leaves_the_loss_finite() -> None:
    loss = head_tail_kl(torch.zeros(1, 3), torch.tensor([[1000.0, 0.0, 0.0]]), 1, 0.5).item()
    # head: gap 2/3 of 4/3, so both weigh 1/2; the logarithm of the teacher's zeros is taken as -20
    forward, reverse = math.log(3), (3 * math.log(1 / 3) + 40) / 3
    assert loss == pytest.approx((forward + reverse) / 2, rel=1e-5)


def test_a_student_that_is_surely_wrong_still_learns() -> None:
    student = torch.tensor([[0.0, 90.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(head_tail_kl(student, torch.tensor([[5.0, 0.0]]), 1, 0.5), student)
    assert slope[0, 0].item() < -0.1


def test_the_weight_scales_the_divergence_alone() -> None:
    networks, (images, labels) = pair(), batch()
    outputs = networks.outputs(images)
    one, three = (create("hta-kl", networks.setup, weight=w).losses(*outputs, images, labels) for w in (1.0, 3.0))
    assert three["hta"].item() == pytest.approx(3 * one["hta"].item())
    assert three["ce"].item() == one["ce"].item()
