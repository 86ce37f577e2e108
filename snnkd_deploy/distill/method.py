"""What a distillation method is: losses from what student and teacher make of the same images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from snnkd_deploy.snn.models import Network, Outputs


@dataclass(frozen=True)
class Setup:
    """What a method may know before training, to size its own layers; shapes are without the batch axis."""

    classes: int
    timesteps: int
    student_taps: tuple[tuple[int, ...], ...]
    teacher_taps: tuple[tuple[int, ...], ...]
    teacher: Network
    """Frozen and in eval mode while the student trains."""


class Method(nn.Module):
    """Base of all methods. Options are keyword arguments with defaults; extra layers are submodules and are trained.

    The random numbers of torch are seeded anew before each step, so `losses` may draw from them.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    """What the engine must give beyond rates and mean logits: "steps", the logits of each step."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def prepare(self, student: Network, teacher: Network) -> None:
        """Called once before the first epoch, never on resume: the place to give the student its first weights."""

    @abstractmethod
    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised; `images` (B, C, H, W) float, `labels` (B,) int64."""
        raise NotImplementedError
