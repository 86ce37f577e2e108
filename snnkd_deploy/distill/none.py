"""No distillation: the labels alone, the baseline of every comparison."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from snnkd_deploy.distill.method import Method
from snnkd_deploy.snn.models import Outputs


class NoDistillation(Method):
    """Cross-entropy of the mean logits with the labels."""

    name = "none"
    paper = ""
    teacher_taps = False

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The term `ce`."""
        return {"ce": functional.cross_entropy(student.logits, labels)}
