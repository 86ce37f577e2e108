"""Distillation by hybrid models, spiking blocks ahead of frozen ANN blocks: Yang et al., CVPR 2025."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.distill.logits import LogitTerm
from snnkd_deploy.distill.method import Method, Setup, as_map
from snnkd_deploy.snn.models import Network, Outputs


def mapping(channels: int, wanted: int) -> nn.Sequential:
    """C_k: rates to what an ANN block expects, values of a ReLU; 1x1 convolution, BatchNorm, ReLU."""
    return nn.Sequential(nn.Conv2d(channels, wanted, 1, bias=False), nn.BatchNorm2d(wanted), nn.ReLU())


def tail(teacher: Network, features: Tensor, block: int) -> Tensor:
    """Logits (B, classes) of what stands behind `block` of the teacher, fed with features (B, ...) in its place."""
    for layer in teacher.blocks[block + 1 :]:
        features = layer(features)
    logits: Tensor = teacher.mean(teacher.head(features))
    return logits


class Blockwise(Method):
    """Labels and the teacher's logits, for the student and for each hybrid M_k = S_0 .. S_k, C_k, A_{k+1} .. A_n.

    The rates behind spiking block k pass through a learnable mapping C_k and on through the frozen rest of the
    teacher, which so judges them: no weight of it changes, in eval mode, but gradients flow through it to C_k and S.

    Weights, temperature, sums and the inside of C_k could not be read. Decided here: all heads count alike, each with
    cross-entropy of weight 1 and a logit term of `weight` 0.3 at temperature 3 (the self-distillation of the same
    laboratory has these), summed over the heads; C_k is 1x1 convolution, BatchNorm, ReLU; the cuts are the last
    `hybrids` ahead of the last block, which are the paper's three for ResNet-18.
    """

    name = "blockwise"
    paper = "Yang, Yu, Liu, Ma, Wang, Li: Efficient ANN-Guided Distillation, CVPR 2025, arXiv 2503.16572"
    teacher_taps = False

    def __init__(
        self, setup: Setup, *, hybrids: int = 3, weight: float = 0.3, temperature: float = 3.0, logits: str = "kd"
    ) -> None:
        super().__init__(setup)
        self.require(hybrids >= 1, f"hybrids {hybrids} must be at least 1")
        self.term = LogitTerm(self.name, logits, weight, temperature)
        self.require(not setup.teacher.uncut, f"the teacher cannot be cut into blocks: {setup.teacher.uncut}")
        blocks = len(setup.teacher_taps)
        self.require(
            blocks == len(setup.student_taps) > 1,
            f"student and teacher need equally many blocks, at least 2; met {len(setup.student_taps)} and {blocks}",
        )
        self.cuts = range(max(0, blocks - 1 - hybrids), blocks - 1)
        for k in self.cuts:
            self._check_sizes(k)
        self.mappings = nn.ModuleList(mapping(setup.student_taps[k][0], setup.teacher_taps[k][0]) for k in self.cuts)

    def _check_sizes(self, k: int) -> None:
        mine, wanted = self.setup.student_taps[k], self.setup.teacher_taps[k]
        message = f"block {k} gives {mine} in the student and {wanted} in the teacher; only the channels may differ"
        self.require(mine[1:] == wanted[1:], message)

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce` and that of the logits for the student, `hybrid_ce` and so on summed over the hybrids."""
        own = self._judged(student.logits, teacher.logits, labels)
        hybrids = [self._judged(logits, teacher.logits, labels) for logits in self.hybrid_logits(student)]
        return own | {f"hybrid_{name}": torch.stack([one[name] for one in hybrids]).sum() for name in own}

    def hybrid_logits(self, student: Outputs) -> list[Tensor]:
        """Logits (B, classes) of each hybrid model."""
        shapes = self.setup.teacher_taps
        rates = [layer(as_map(student.taps[k])) for k, layer in zip(self.cuts, self.mappings, strict=True)]
        return [tail(self.setup.teacher, one.view(-1, *shapes[k]), k) for k, one in zip(self.cuts, rates, strict=True)]

    def _judged(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"ce": functional.cross_entropy(logits, labels), **self.term(logits, teacher, labels)}
