"""Blurred knowledge distillation, BKDSNN: Xu et al., ECCV 2024."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.cluster import drawn
from snnkd_deploy.distill.logits import LogitTerm
from snnkd_deploy.distill.method import Method, Setup, as_map, same_size
from snnkd_deploy.snn.models import Outputs


def blurred(features: Tensor, share: float) -> Tensor:
    """Features (B, C, H, W), each channel of each sample zero with probability `share`; the others as they are."""
    chances = drawn(lambda count: torch.rand(count, features.shape[1], device=features.device), len(features))
    return features * (chances >= share)[:, :, None, None]


def restoration(channels: int) -> nn.Sequential:
    """conv3x3, ReLU, conv3x3: from a blurred feature to the teacher's."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
    )


def restoration_error(restored: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error; a teacher's vector (B, C) is compared with the mean over the positions of the map."""
    if teacher.ndim == 2:
        return functional.mse_loss(restored.mean((2, 3)), teacher)
    return functional.mse_loss(*same_size(restored, teacher))


class BKD(Method):
    """Labels, weighted soft labels, and the teacher's last feature restored from a blurred one of the student.

    The student's feature is the rate behind the last block, brought to the teacher's channels by a 1x1 convolution
    where they differ. The released code sums the squared error over channels and positions with weight 7e-5, which
    ties the weight to the size of the map; here it is the mean, and `weight` is 7e-5 * 512 * 7 * 7, about 1.8, the
    same on the map of the paper. `blur` is 0.15 as in every released configuration, without rescaling of what is kept;
    the rescaling of the teacher's feature, off in all of them, is left out.
    """

    name = "bkd"
    paper = "Xu, You, Guo, Wang, He: BKDSNN, ECCV 2024, arXiv 2407.09083"

    def __init__(
        self,
        setup: Setup,
        *,
        blur: float = 0.15,
        weight: float = 1.8,
        logits: str = "wsl",
        logit_weight: float = 1.0,
        temperature: float = 2.0,
    ) -> None:
        super().__init__(setup)
        self.require(0 <= blur < 1, f"blur {blur} must be from 0 to below 1")
        self.require(weight >= 0, f"weight {weight} must not be below 0")
        self.blur, self.weight = blur, weight
        self.term = LogitTerm(self.name, logits, logit_weight, temperature)
        channels, wanted = setup.student_taps[-1][0], setup.teacher_taps[-1][0]
        self.align = nn.Identity() if channels == wanted else nn.Conv2d(channels, wanted, 1)
        self.restore = restoration(wanted)

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce`, `restored` and, by default, `wsl`."""
        ce = functional.cross_entropy(student.logits, labels)
        restored = self.weight * restoration_error(self.restored(student.taps[-1]), teacher.taps[-1])
        return {"ce": ce, "restored": restored, **self.term(student.logits, teacher.logits, labels)}

    def restored(self, rates: Tensor) -> Tensor:
        """The teacher's feature (B, C, H, W) as the block makes it from rates (B, C, H, W) or (B, C)."""
        restored: Tensor = self.restore(blurred(self.align(as_map(rates)), self.blur))
        return restored
