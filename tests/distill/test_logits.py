"""The softened divergence, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from snnkd_deploy.distill import create
from snnkd_deploy.distill.logits import softened_kl
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
