"""Every method takes shares of classes in place of labels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from snnkd_deploy import distill
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.snn import models
from snnkd_deploy.train import tap_shapes

SHAPE, CLASSES = (1, 8, 8), 10


@pytest.mark.parametrize("name", sorted(distill.methods()))
@pytest.mark.parametrize("term", ["kd", "wsl"])
def test_shares_of_one_class_are_its_label_and_cross_entropy_is_linear_in_them(name: str, term: str) -> None:
    if term == "wsl" and "logits" not in distill.accepted_options(distill.methods()[name]):
        pytest.skip("the method has no term to choose")
    options = {"logits": term} if "logits" in distill.accepted_options(distill.methods()[name]) else {}
    torch.manual_seed(0)
    config = TrainConfig(width=3, timesteps=2)
    student, teacher = models.student(config, SHAPE, CLASSES), models.teacher(config, SHAPE, CLASSES).eval()
    setup = distill.Setup(CLASSES, 2, tap_shapes(student, SHAPE), tap_shapes(teacher, SHAPE), teacher)
    method = distill.create(name, setup, **options).eval()
    images, labels, others = torch.rand(6, *SHAPE), torch.arange(6), torch.tensor([3, 3, 0, 9, 8, 7])

    def losses(given: torch.Tensor) -> dict[str, float]:
        torch.manual_seed(0)
        outputs = student.eval().outputs(images), teacher.outputs(images)
        return {key: value.item() for key, value in method.losses(*outputs, images, given).items()}

    one, other = (functional.one_hot(which, CLASSES).float() for which in (labels, others))
    assert losses(one) == pytest.approx(losses(labels), rel=1e-5)
    met, first, second = losses(0.25 * one + 0.75 * other), losses(labels), losses(others)
    for key in met:
        if key.endswith("ce"):
            assert met[key] == pytest.approx(0.25 * first[key] + 0.75 * second[key], rel=1e-5)
