"""Feature distillation through an affine projector: Hu, Li, Deng, Neuromorphic Computing and Engineering 2025."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.distill.logits import LogitTerm
from snnkd_deploy.distill.method import Method, Setup, as_map, same_size
from snnkd_deploy.snn.models import Outputs

EPSILON = 1e-6  # beside the squared size of a teacher's feature; only one that is silent is smaller


def projector(channels: int, wanted: int) -> nn.Conv2d:
    """An affine map at each position: scale and shift per channel where the numbers agree, else a 1x1 convolution."""
    if channels != wanted:
        return nn.Conv2d(channels, wanted, 1)
    layer = nn.Conv2d(channels, channels, 1, groups=channels)
    assert layer.bias is not None
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def normalised_error(student: Tensor, teacher: Tensor) -> Tensor:
    """|student - teacher|^2 / |teacher|^2 for each sample, mean over the batch; features (B, ...) of equal shape."""
    error = (student - teacher).flatten(1).square().sum(1)
    return (error / (teacher.flatten(1).square().sum(1) + EPSILON)).mean()


class Feature(Method):
    """Labels, plus the distance between the features of the teacher and the projected features of the student.

    The full text could not be read, only that a light affine projector aligns the two and that membranes or spikes
    serve equally. Decided here: a feature is the mean over time at the end of each block (with `taps="last"` only of
    the last), of the spikes or of the membrane before its reset; maps of unequal size are averaged to the smaller;
    each distance is relative to the size of the teacher's feature, so `weight` is independent of map size, channels
    and scale, 1 is the cost of a student that says nothing; distances of several taps are averaged.
    `logits` adds a logit term, by default none.
    """

    name = "feature"
    paper = "Hu, Li, Deng: Aligning features and saliency, Neuromorph. Comput. Eng. 2025, 10.1088/2634-4386/ade821"

    def __init__(
        self,
        setup: Setup,
        *,
        feature: str = "spikes",
        taps: str = "all",
        weight: float = 1.0,
        logits: str = "none",
        logit_weight: float = 1.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(setup)
        self.require(feature in ("spikes", "membrane"), f"feature = {feature!r}; accepted: spikes, membrane")
        self.require(taps in ("all", "last"), f"taps = {taps!r}; accepted: all, last")
        self.require(weight >= 0, f"weight {weight} must not be below 0")
        self.weight, self.term = weight, LogitTerm(self.name, logits, logit_weight, temperature)
        self.pairs = setup.pairs if taps == "all" else setup.pairs[-1:]
        if feature == "membrane":
            self.needs = frozenset({"membranes"})
        self.projectors = nn.ModuleList(
            projector(setup.student_taps[s][0], setup.teacher_taps[t][0]) for s, t in self.pairs
        )

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce` and `feature`, and that of the logits."""
        features = student.membranes if "membranes" in self.needs else student.taps
        ce = functional.cross_entropy(student.logits, labels)
        distance = self.weight * self.distance(features, teacher.taps)
        return {"ce": ce, "feature": distance, **self.term(student.logits, teacher.logits, labels)}

    def distance(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
        """Mean relative error over the pairs of taps, each (B, C, H, W) or (B, C)."""
        errors = []
        for layer, (s, t) in zip(self.projectors, self.pairs, strict=True):
            mine, wanted = same_size(as_map(students[s]), as_map(teachers[t]))
            errors.append(normalised_error(layer(mine), wanted))
        return torch.stack(errors).mean()
