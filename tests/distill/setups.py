"""Small networks for the tests of methods."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from snnkd_deploy.config import TrainConfig
from snnkd_deploy.distill import Setup
from snnkd_deploy.snn import models
from snnkd_deploy.snn.models import Network, Outputs
from snnkd_deploy.train import tap_shapes

SHAPE, CLASSES = (2, 8, 8), 5


class Pair(NamedTuple):
    """A student and its frozen teacher."""

    student: Network
    teacher: Network
    setup: Setup

    def outputs(self, images: Tensor) -> tuple[Outputs, Outputs]:
        return self.student.outputs(images), self.teacher.outputs(images)


def pair(model: str = "cnn", width: int = 4, teacher_width: int = 6, timesteps: int = 3, depth: int = 2) -> Pair:
    """A pair with fresh, repeatable weights."""
    torch.manual_seed(0)
    config = TrainConfig(model=model, width=width, teacher_width=teacher_width, timesteps=timesteps, depth=depth)
    student, teacher = models.student(config, SHAPE, CLASSES), models.teacher(config, SHAPE, CLASSES)
    shapes = tap_shapes(student, SHAPE), tap_shapes(teacher, SHAPE)
    teacher.eval().requires_grad_(False)
    return Pair(student.train(), teacher, Setup(CLASSES, timesteps, *shapes, teacher))


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    """Images and labels."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, *SHAPE, generator=generator), torch.randint(CLASSES, (size,), generator=generator)
