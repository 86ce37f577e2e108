"""Each step is judged by itself, and entropy is rewarded."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from snnkd_deploy.distill import create
from snnkd_deploy.distill.logits import softened_kl
from snnkd_deploy.distill.tser import step_cross_entropy, step_entropy, step_kl
from tests.distill.setups import batch, pair

EVEN, SURE = [[0.0, 0.0]], [[math.log(3), 0.0]]  # probabilities (1/2, 1/2) and (3/4, 1/4)
STEPS: Tensor = torch.tensor([EVEN, SURE], dtype=torch.float64)


def test_cross_entropy_is_the_mean_over_the_steps_not_that_of_the_mean() -> None:
    found = step_cross_entropy(STEPS, torch.tensor([1])).item()
    assert found == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_labels_belong_to_samples_and_not_to_steps() -> None:
    steps, labels = torch.randn(3, 4, 5), torch.tensor([0, 1, 2, 3])
    expected = sum(functional.cross_entropy(step, labels).item() for step in steps) / 3
    assert step_cross_entropy(steps, labels).item() == pytest.approx(expected, rel=1e-5)


def test_the_divergence_is_the_mean_over_the_steps() -> None:
    teacher = torch.tensor(SURE, dtype=torch.float64)
    one_step = 4 * (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert step_kl(2 * STEPS.flip(0), torch.zeros(1, 2).double(), 2).item() == pytest.approx(one_step / 2)
    assert step_kl(STEPS[1:], teacher, 1).item() == pytest.approx(0)


def test_entropy_is_that_of_the_softened_logits() -> None:
    sure = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert step_entropy(STEPS, 1).item() == pytest.approx((math.log(2) + sure) / 2)
    assert step_entropy(2 * STEPS, 2).item() == pytest.approx((math.log(2) + sure) / 2)


def test_one_step_without_entropy_is_ordinary_distillation() -> None:
    networks, (images, labels) = pair(timesteps=1), batch()
    student, teacher = networks.outputs(images)
    losses = create("tser", networks.setup, alpha=0.3, gamma=0.0).losses(student, teacher, images, labels)
    expected = 0.7 * functional.cross_entropy(student.logits, labels) + 0.3 * softened_kl(
        student.logits, teacher.logits, 3.0
    )
    assert torch.stack(list(losses.values())).sum().item() == pytest.approx(expected.item(), rel=1e-6)


def test_more_entropy_is_a_smaller_loss() -> None:
    networks, (images, labels) = pair(), batch()
    losses = create("tser", networks.setup, gamma=2.0).losses(*networks.outputs(images), images, labels)
    assert losses["entropy"].item() == pytest.approx(
        -2 * step_entropy(networks.student.outputs(images).steps, 3).item()
    )


def test_it_needs_the_logits_of_each_step() -> None:
    assert create("tser", pair().setup).needs == {"steps"}
