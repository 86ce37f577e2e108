"""Knowledge distillation on logits (Hinton, Vinyals, Dean 2015), alone and as a term of other methods."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from snnkd_deploy.distill.method import Method, Setup
from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn.models import Outputs

KINDS = ("kd", "wsl", "none")
SMALLEST = 1e-7  # cross-entropy of a teacher that is sure and right, below which a float32 cannot tell it from zero


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """t^2 KL(softmax(teacher / t) || softmax(student / t)) at temperature t, mean over the batch; logits (B, classes).

    t^2 keeps the size of the gradient independent of it (section 2 of the paper).
    """
    p, q = functional.log_softmax(teacher / temperature, dim=1), functional.log_softmax(student / temperature, dim=1)
    return temperature**2 * functional.kl_div(q, p, reduction="batchmean", log_target=True)


def soft_label_weights(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """1 - exp(-CE(student) / CE(teacher)) for each sample (B,), at temperature 1 and without a gradient.

    Near 1 where the student is far behind the teacher, near 0 where it is ahead (Zhou et al. 2021).
    """
    behind, ahead = (
        functional.cross_entropy(logits.detach(), labels, reduction="none") for logits in (student, teacher)
    )
    return 1 - torch.exp(-behind / ahead.clamp(min=SMALLEST))


def weighted_soft_labels(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """t^2 times the mean of weight * CE(softmax(teacher / t), softmax(student / t)); logits (B, classes).

    Zhou et al.: Rethinking Soft Labels for Knowledge Distillation, ICLR 2021, as BKDSNN uses it.
    """
    p, q = functional.softmax(teacher / temperature, dim=1), functional.log_softmax(student / temperature, dim=1)
    return temperature**2 * (soft_label_weights(student, teacher, labels) * -(p * q).sum(1)).mean()


@dataclass(frozen=True)
class LogitTerm:
    """What a method adds to its losses for the logits: "kd", the softened divergence; "wsl", weighted soft labels."""

    method: str
    kind: str
    weight: float
    temperature: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"method {self.method!r}: logits = {self.kind!r}; accepted: {', '.join(KINDS)}")
        if self.temperature <= 0 or self.weight < 0:
            raise ConfigError(
                f"method {self.method!r}: temperature {self.temperature} must be above 0 "
                f"and weight {self.weight} not below 0"
            )

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The term under its own name; nothing for "none". Logits (B, classes), labels (B,)."""
        if self.kind == "none":
            return {}
        if self.kind == "wsl":
            return {"wsl": self.weight * weighted_soft_labels(student, teacher, labels, self.temperature)}
        return {"kd": self.weight * softened_kl(student, teacher, self.temperature)}


class Logits(Method):
    """Cross-entropy with the labels plus `weight` times a term of the logits: the softened divergence, or another."""

    name = "logits"
    paper = "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, arXiv 1503.02531"
    teacher_taps = False

    def __init__(self, setup: Setup, *, weight: float = 1.0, temperature: float = 4.0, logits: str = "kd") -> None:
        super().__init__(setup)
        self.term = LogitTerm(self.name, logits, weight, temperature)

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce` and, by default, `kd`."""
        ce = functional.cross_entropy(student.logits, labels)
        return {"ce": ce, **self.term(student.logits, teacher.logits, labels)}
