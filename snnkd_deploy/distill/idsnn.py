"""A student that starts from the weights of a deeper ANN and then learns from its logits, IDSNN: Fan et al. 2023."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.distill.logits import LogitTerm
from snnkd_deploy.distill.method import Method, Setup
from snnkd_deploy.snn.layers import Neuron
from snnkd_deploy.snn.models import Network, Outputs
from snnkd_deploy.snn.taps import ForeignNetwork

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
WEIGHTED = (nn.Conv2d, nn.Linear, *NORMS)
NOT_COPIED = "shortcut"


def spread(wanted: int, available: int) -> list[int]:
    """Which of the `available` blocks the `wanted` ones start from: 0, then at even distances.

    With too few of them each is used once and the last one again and again.
    """
    return [min(number * max(available, wanted) // wanted, available - 1) for number in range(wanted)]


def fitted(source: Tensor, shape: torch.Size) -> Tensor:
    """`source` with each axis cut to `shape`, or repeated from its start until it is as long."""
    for axis, size in enumerate(shape):
        source = source.index_select(axis, torch.arange(size, device=source.device) % source.shape[axis])
    return source


def matched(student: nn.Module, teacher: nn.Module | None) -> Iterator[tuple[nn.Module, nn.Module | None]]:
    """Each layer with weights and the one it starts from: by name, by `spread` where children have numbers as names."""
    if isinstance(student, WEIGHTED):
        yield student, teacher
        return
    mine, theirs = dict(student.named_children()), dict(teacher.named_children()) if teacher else {}
    numbered = theirs and all(name.isdigit() for name in mine)
    names = map(str, spread(len(mine), len(theirs))) if numbered else mine
    for (name, child), other in zip(mine.items(), names, strict=True):
        if name != NOT_COPIED:
            yield from matched(child, theirs.get(other))


def aligned(student: Network, teacher: Network) -> tuple[list[tuple[nn.Module, nn.Module | None]], list[str]]:
    """Of a teacher whose names mean nothing: layers with weights, in their order, block by block; and what differs."""
    pairs: list[tuple[nn.Module, nn.Module | None]] = []
    problems = [] if len(teacher.blocks) else ["the teacher has no blocks"]
    chosen = spread(len(student.blocks), len(teacher.blocks)) if len(teacher.blocks) else []
    for number, (block, place) in enumerate(zip(student.blocks, chosen, strict=False)):
        mine, theirs = (
            [one for one in b.modules() if isinstance(one, WEIGHTED)] for b in (block, teacher.blocks[place])
        )
        if len(mine) != len(theirs) or not all(map(alike, mine, theirs)):
            problems.append(f"block {number} of the student has {_kinds(mine)}, of the teacher {_kinds(theirs)}")
        pairs += zip(mine, theirs, strict=False)
    return pairs, problems


def _kinds(layers: Sequence[nn.Module]) -> str:
    return ", ".join(f"{type(one).__name__}{list(getattr(one, 'kernel_size', ())) or ''}" for one in layers)


def alike(one: nn.Module, other: nn.Module | None) -> bool:
    """Whether two layers are of one kind and, if convolutions, of one kernel size."""
    return type(one) is type(other) and getattr(one, "kernel_size", 0) == getattr(other, "kernel_size", 0)


@torch.no_grad()
def copy_layer(target: nn.Module, source: nn.Module, threshold: float) -> None:
    """Fill `target` from `source`; a BatchNorm, running statistics included, gives currents `threshold` times as large.

    ReLU networks have activations about 1, so a neuron that fires at `threshold` needs that much more or less.
    """
    theirs = source.state_dict()
    for name, tensor in target.state_dict().items():
        tensor.copy_(fitted(theirs[name], tensor.shape))
    if isinstance(target, NORMS):
        target.weight.mul_(threshold)
        target.bias.mul_(threshold)


class IDSNN(Method):
    """Labels plus 0.3 times the softened divergence at temperature 4, from a start with the teacher's weights.

    Copied are the convolutions (linear layers in an mlp) and BatchNorms of stem and blocks; not the shortcuts and the
    readout. The released code takes the first blocks of each stage of a ResNet-34 for a ResNet-18; here the choice is
    even over a stage (in networks without stages, over all blocks), which is the same where the depths are equal.
    A teacher of the user's own has to have the same kinds of layers, block by block, in the same order.
    Channels that are too many are cut off, missing ones repeated. Where the threshold is not 1 (0.5 in the paper,
    whose copied BatchNorms forget it), scale and shift are multiplied by it.
    """

    name = "idsnn"
    paper = "Fan, Zhang, Zhang: IDSNN, Biomimetics 2023, 8(4):375"
    teacher_taps = False

    def __init__(self, setup: Setup, *, weight: float = 0.3, temperature: float = 4.0, logits: str = "kd") -> None:
        super().__init__(setup)
        self.term = LogitTerm(self.name, logits, weight, temperature)

    def prepare(self, student: Network, teacher: Network, images: Tensor) -> None:
        """Copy the weights. ConfigError if the networks are not of one family."""
        self.require(not teacher.uncut, f"the teacher cannot be cut into blocks: {teacher.uncut}")
        if isinstance(teacher, ForeignNetwork):
            pairs, differing = aligned(student, teacher)
            self.require(not differing, f"weights cannot be shared: {'; '.join(differing)}")
        else:
            pairs = list(matched(student.blocks, teacher.blocks))
            same = all(alike(one, other) for one, other in pairs)
            self.require(same, "student and teacher must be the same model, of any width and depth, to share weights")
        threshold = next(module.threshold for module in student.modules() if isinstance(module, Neuron))
        for one, other in pairs:
            assert other is not None
            copy_layer(one, other, threshold)

    def losses(self, student: Outputs, teacher: Outputs, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce` and, by default, `kd`."""
        ce = functional.cross_entropy(student.logits, labels)
        return {"ce": ce, **self.term(student.logits, teacher.logits, labels)}
