"""The baseline looks at the labels only."""

from __future__ import annotations

import math

import pytest
import torch

from snnkd_deploy.distill import create
from snnkd_deploy.snn.models import Outputs
from tests.distill.setups import pair


def test_the_teacher_does_not_matter() -> None:
    method = create("none", pair().setup)
    student = Outputs(torch.tensor([[math.log(3), 0.0]]), torch.empty(0), ())
    teacher = Outputs(torch.full((1, 2), math.nan), torch.empty(0), ())
    losses = method.losses(student, teacher, torch.empty(0), torch.tensor([1]))
    assert {name: loss.item() for name, loss in losses.items()} == {"ce": pytest.approx(math.log(4))}
