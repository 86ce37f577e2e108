"""Head-tail aware divergence of logits, HTA-KL: Zhang et al. 2025."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from snnkd_deploy.distill.method import Method, Setup
from snnkd_deploy.snn.models import Outputs

LOWEST = -20.0  # logarithm of a teacher's probability; the reverse divergence grows with it without end


def head_mask(teacher: Tensor, share: float) -> Tensor:
    """Whether a class belongs to the head, for probabilities (B, classes) in falling order.

    It does while the classes ahead of it hold less than `share`: the likeliest class always does, even where it alone
    holds more (a mask of "sum up to here below share" would then be empty).
    """
    return teacher.cumsum(1) - teacher < share


def head_weight(student: Tensor, teacher: Tensor, share: float) -> Tensor:
    """Share of the head, 0 to 1, in the gap between two sets of probabilities (B, classes); (B,), no gradient."""
    ordered, index = teacher.detach().sort(dim=1, descending=True)
    gap = (ordered - student.detach().gather(1, index)).abs()
    head = (gap * head_mask(ordered, share)).sum(1)
    return head / gap.sum(1).clamp(min=torch.finfo(gap.dtype).tiny)


def head_tail_kl(student: Tensor, teacher: Tensor, temperature: float, share: float) -> Tensor:
    """t^2 (w KL(teacher || student) + (1 - w) KL(student || teacher)), w from `head_weight`; mean over the batch.

    The forward divergence looks after the head, the reverse one after the tail. Logits (B, classes).
    """
    log_p = functional.log_softmax(teacher / temperature, dim=1).clamp(min=LOWEST)
    log_q = functional.log_softmax(student / temperature, dim=1)
    p, q = log_p.exp(), log_q.exp()
    weight = head_weight(q, p, share)
    forward, reverse = (p * (log_p - log_q)).sum(1), (q * (log_q - log_p)).sum(1)
    return temperature**2 * (weight * forward + (1 - weight) * reverse).mean()


class HTAKL(Method):
    """Cross-entropy with the labels plus `weight` times the head-tail aware divergence of the mean logits.

    Weight, temperature and the share that splits head from tail could not be read. Decided here: `head` 0.5 as in the
    parent method (Wu et al., arXiv 2404.02657), temperature 3 as in the works of the same lineage, weight 1. No
    warm-up: the weights of head and tail follow the gap alone, as in the paper.
    """

    name = "hta-kl"
    paper = "Zhang, Zhu, Yu, Wang: Head-Tail-Aware KL Divergence in Knowledge Distillation for SNNs, arXiv 2504.20445"
    teacher_taps = False

    def __init__(self, setup: Setup, *, weight: float = 1.0, temperature: float = 3.0, head: float = 0.5) -> None:
        super().__init__(setup)
        self.require(weight >= 0, f"weight {weight} must not be below 0")
        self.require(temperature > 0, f"temperature {temperature} must be above 0")
        self.require(0 < head <= 1, f"head {head} must be above 0 and at most 1")
        self.weight, self.temperature, self.head = weight, temperature, head

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce` and `hta`."""
        ce = functional.cross_entropy(student.logits, labels)
        divergence = head_tail_kl(student.logits, teacher.logits, self.temperature, self.head)
        return {"ce": ce, "hta": self.weight * divergence}
