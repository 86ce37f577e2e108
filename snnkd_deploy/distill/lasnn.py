"""Layer-wise distillation of attention maps, LaSNN: Hong et al. 2023."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from snnkd_deploy.distill.logits import LogitTerm
from snnkd_deploy.distill.method import Method, Setup, same_size
from snnkd_deploy.run import open_run
from snnkd_deploy.snn.conversion import convert, obstacle
from snnkd_deploy.snn.models import load_teacher
from snnkd_deploy.snn.network import Network, Outputs

EPSILON = 1e-6  # beside the length of an attention map: a layer that is silent has none


def attention(features: Tensor) -> Tensor:
    """Squares of features (B, C, H, W) summed over channels, as vectors (B, H * W) of length 1.

    Zagoruyko and Komodakis, ICLR 2017, with p = 2. The map of a silent layer is zero, and so is its gradient.
    """
    energy = features.square().sum(1).flatten(1)
    return energy / (energy.square().sum(1, keepdim=True) + EPSILON**2).sqrt()


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance between the attention maps, 0 to 2, mean over the batch; the larger maps are averaged down."""
    student, teacher = same_size(student, teacher)
    return (attention(student) - attention(teacher)).square().sum(1).mean()


class LaSNN(Method):
    """Labels, plus the distance of the attention maps behind each block; channels may differ freely.

    Only the idea could be read. Decided here: maps of attention transfer (squared activations, summed over channels,
    normalised) from rates on one side and ReLU on the other; every pair of blocks, counted from the last, that has
    positions to compare; `weight` times the sum. 3 makes the term about a third of the cross-entropy of an untrained
    student.

    The paper starts from an ANN of the student's shape, converted (`snn.conversion`). `start` "auto" takes the teacher
    where it has that shape, else fresh weights; "convert" insists on it, "fresh" never does it; anything else is the
    path of a finished run whose teacher has the shape.
    """

    name = "lasnn"
    paper = "Hong, Shen, Qi, Wang: LaSNN, arXiv 2304.09101"

    def __init__(
        self,
        setup: Setup,
        *,
        weight: float = 3.0,
        logits: str = "none",
        logit_weight: float = 1.0,
        temperature: float = 4.0,
        start: str = "auto",
    ) -> None:
        super().__init__(setup)
        self.require(weight >= 0, f"weight {weight} must not be below 0")
        self.start = start
        self.weight, self.term = weight, LogitTerm(self.name, logits, logit_weight, temperature)
        shapes = [(s, t, setup.student_taps[s][1:], setup.teacher_taps[t][1:]) for s, t in setup.pairs]
        self.pairs = [(s, t) for s, t, mine, other in shapes if max(mine, default=1) > 1 and max(other, default=1) > 1]
        self.require(bool(self.pairs), "no block of both networks has a map with more than one position to attend to")

    def prepare(self, student: Network, teacher: Network, images: Tensor) -> None:
        """Convert the ANN that `start` names."""
        named = self.start not in ("auto", "convert", "fresh")
        with torch.device("cpu"):
            ann = load_teacher(open_run(self.start)) if named else teacher
        reason = obstacle(ann, student)
        self.require(not reason or self.start in ("auto", "fresh"), f"start = {self.start!r}: {reason}")
        if not reason and self.start != "fresh" and not images.is_meta:
            convert(ann.to(images.device), student, images)

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce` and `attention`, and that of the logits."""
        ce = functional.cross_entropy(student.logits, labels)
        distances = [attention_distance(student.taps[s], teacher.taps[t]) for s, t in self.pairs]
        own = {"ce": ce, "attention": self.weight * torch.stack(distances).sum()}
        return own | self.term(student.logits, teacher.logits, labels)
