"""What a distillation method is: losses from what student and teacher make of the same images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.errors import ConfigError
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

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Numbers of the taps (student, teacher) that stand for each other: as many as both have, up to the last.

        None of the papers has networks of different depth in blocks; the last taps are those with the same meaning.
        """
        students, teachers = len(self.student_taps), len(self.teacher_taps)
        return tuple((students - n, teachers - n) for n in range(min(students, teachers), 0, -1))


class Method(nn.Module):
    """Base of all methods. Options are keyword arguments with defaults; extra layers are submodules and are trained.

    The random numbers of torch are seeded anew before each step, so `losses` may draw from them; those of single
    samples come from `cluster.drawn`. A batch may be cut up, over processes or in time, and the losses of its parts are
    averaged: each must be a mean over samples. Samples may meet in BatchNorm, which sees the batch of all processes.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    needs: frozenset[str] = frozenset()
    """What the engine must give beyond rates and mean logits: "steps", logits of each step; "membranes", of each block.

    A method whose needs depend on its options sets them in its constructor.
    """
    teacher_taps: ClassVar[bool] = True
    """Whether `losses` looks at the taps of the teacher, or at its logits alone."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        none = "the teacher has no feature to compare with; name some with teacher_taps"
        self.require(bool(setup.teacher_taps) or not self.teacher_taps, none)

    def prepare(self, student: Network, teacher: Network, images: Tensor) -> None:
        """Called once before the first epoch, never on resume: the place to give the student its first weights.

        `images` (B, C, H, W) are some of the training images, for calibration. Before anything is trained it is called
        with a student and images on the meta device, which have shapes and no values, to see whether they will do.
        """

    @abstractmethod
    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised; float `images` (B, C, H, W), frames (B, T, C, H, W).

        `labels` (B,) are classes or, after mixup, (B, classes) shares of them; torch's cross-entropy takes both.
        """
        raise NotImplementedError

    def require(self, accepted: bool, message: str) -> None:
        """A ConfigError that names the method, unless its options or networks are `accepted`."""
        if not accepted:
            raise ConfigError(f"method {self.name!r}: {message}")


def as_map(features: Tensor) -> Tensor:
    """(B, C, H, W) as it is, (B, C) as (B, C, 1, 1)."""
    return features[:, :, None, None] if features.ndim == 2 else features


def same_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (B, C, H, W), the larger averaged down to the height and width of the smaller; channels may differ."""
    if one.shape[2:] == other.shape[2:]:
        return one, other
    size = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    return functional.adaptive_avg_pool2d(one, size), functional.adaptive_avg_pool2d(other, size)
