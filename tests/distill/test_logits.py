"""The softened divergence, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from snnkd_deploy.distill import create
from snnkd_deploy.distill.logits import soft_label_weights, softened_kl, weighted_soft_labels
from snnkd_deploy.snn.models import Outputs
from tests.distill.setups import pair

SETUP = pair().setup


def logits(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_divergence_is_that_of_the_teacher_from_the_student() -> None:
    # softmax([ln 3, 0]) = (3/4, 1/4), softmax([0, 0]) = (1/2, 1/2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert softened_kl(logits([0, 0]), logits([math.log(3), 0]), 1).item() == pytest.approx(expected)
    other = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert softened_kl(logits([math.log(3), 0]), logits([0, 0]), 1).item() == pytest.approx(other)


def test_the_temperature_divides_the_logits_and_its_square_multiplies_the_loss() -> None:
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert softened_kl(logits([0, 0]), logits([2 * math.log(3), 0]), 2).item() == pytest.approx(expected)


def test_the_mean_is_over_the_batch_not_over_the_classes() -> None:
    one = softened_kl(logits([0, 0]), logits([1, 0]), 1)
    assert softened_kl(logits([0, 0], [5, 5]), logits([1, 0], [3, 3]), 1).item() == pytest.approx(one.item() / 2)


def test_equal_logits_cost_nothing_but_cross_entropy() -> None:
    same = Outputs(logits([0, 0]), logits([0, 0])[None], ())
    losses = create("logits", SETUP, weight=3.0).losses(same, same, torch.empty(0), torch.tensor([1]))
    assert losses["kd"].item() == pytest.approx(0)
    assert losses["ce"].item() == pytest.approx(math.log(2))


def test_the_weight_scales_the_divergence_alone() -> None:
    student, teacher = (
        Outputs(logits([0, 0]), logits([0, 0])[None], ()),
        Outputs(logits([1, 0]), logits([1, 0])[None], ()),
    )
    light, heavy = (
        create("logits", SETUP, weight=weight).losses(student, teacher, torch.empty(0), torch.tensor([0]))
        for weight in (1.0, 3.0)
    )
    assert heavy["kd"].item() == pytest.approx(3 * light["kd"].item())
    assert heavy["ce"].item() == pytest.approx(light["ce"].item())


LABEL = torch.tensor([0])
EVEN, SURE = logits([0, 0]), logits([math.log(3), 0])  # probabilities (1/2, 1/2) and (3/4, 1/4)


def test_a_soft_label_weighs_more_where_the_student_is_behind() -> None:
    behind = soft_label_weights(EVEN, SURE, LABEL).item()
    ahead = soft_label_weights(SURE, EVEN, LABEL).item()
    assert behind == pytest.approx(1 - math.exp(-math.log(2) / math.log(4 / 3)))
    assert ahead == pytest.approx(1 - math.exp(-math.log(4 / 3) / math.log(2)))
    assert behind > 1 - math.exp(-1) > ahead


def test_weighted_soft_labels_are_weighted_cross_entropy_times_the_square_of_the_temperature() -> None:
    weight = soft_label_weights(EVEN, SURE, LABEL).item()
    assert weighted_soft_labels(EVEN, SURE, LABEL, 1).item() == pytest.approx(weight * math.log(2))
    weight, softer = soft_label_weights(SURE, EVEN, LABEL).item(), math.sqrt(3) / (1 + math.sqrt(3))
    expected = 4 * weight * -(math.log(softer) + math.log(1 - softer)) / 2
    assert weighted_soft_labels(SURE, EVEN, LABEL, 2).item() == pytest.approx(expected)


def test_the_weights_of_soft_labels_carry_no_gradient() -> None:
    student = SURE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(weighted_soft_labels(student, EVEN, LABEL, 1), student)
    # of cross-entropy with (1/2, 1/2): softmax(student) - 1/2
    expected = soft_label_weights(SURE, EVEN, LABEL) * torch.tensor([[0.25, -0.25]])
    torch.testing.assert_close(slope, expected.double())


def test_a_teacher_that_is_sure_and_right_leaves_weights_finite() -> None:
    certain = torch.tensor([[100.0, 0.0]])
    assert soft_label_weights(torch.zeros(1, 2), certain, LABEL).item() == 1
    assert soft_label_weights(certain, certain, LABEL).item() == 0


@pytest.mark.parametrize(("kind", "terms"), [("kd", {"ce", "kd"}), ("wsl", {"ce", "wsl"}), ("none", {"ce"})])
def test_the_term_of_the_logits_is_an_option(kind: str, terms: set[str]) -> None:
    one, other = (Outputs(part, part[None], ()) for part in (EVEN, SURE))
    assert create("logits", SETUP, logits=kind).losses(one, other, torch.empty(0), LABEL).keys() == terms
