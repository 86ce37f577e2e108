"""Knowledge distillation on logits: Hinton, Vinyals, Dean 2015."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from snnkd_deploy.distill.method import Method, Setup
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn.models import Outputs


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """t^2 KL(softmax(teacher / t) || softmax(student / t)) at temperature t, mean over the batch; logits (B, classes).

    t^2 keeps the size of the gradient independent of it (section 2 of the paper).
    """
    p, q = functional.log_softmax(teacher / temperature, dim=1), functional.log_softmax(student / temperature, dim=1)
    return temperature**2 * functional.kl_div(q, p, reduction="batchmean", log_target=True)


class Logits(Method):
    """Cross-entropy with the labels plus `weight` times the softened divergence from the teacher."""

    name = "logits"
    paper = "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, arXiv 1503.02531"

    def __init__(self, setup: Setup, *, weight: float = 1.0, temperature: float = 4.0) -> None:
        super().__init__(setup)
        if temperature <= 0 or weight < 0:
            raise ConfigError(
                f"method 'logits': temperature {temperature} must be above 0 and weight {weight} not below 0"
            )
        self.weight, self.temperature = weight, temperature

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce` and `kd`."""
        ce = functional.cross_entropy(student.logits, labels)
        return {"ce": ce, "kd": self.weight * softened_kl(student.logits, teacher.logits, self.temperature)}
