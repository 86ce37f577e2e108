"""Do two networks look at the same pixels? Saliency of single images and how far that of two networks agrees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Agreement:
    """Means over samples; 1 is the same saliency up to a factor, or the same order of pixels, 0 none in common."""

    cosine: float
    spearman: float


def saliency(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """|d logit_y / d x| of each value of images (B, ...), y its label (B,): Simonyan et al. 2014.

    The network should be in eval mode: in training BatchNorm makes one sample depend on the others.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        chosen = network(images).gather(1, labels[:, None]).sum()
        (slope,) = torch.autograd.grad(chosen, images)
    return slope.abs()


def agreement(student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor) -> Agreement:
    """How far the saliency of student and teacher agrees, as Hu et al. 2025 measure what distillation transfers.

    Their exact measure could not be read; these are the cosine and the rank correlation per sample, averaged.
    A network that does not react to a sample at all agrees on it with 0.
    """
    one, other = (saliency(network, images, labels).flatten(1) for network in (student, teacher))
    return Agreement(
        functional.cosine_similarity(one, other).mean().item(), _correlation(ranks(one), ranks(other)).mean().item()
    )


def ranks(values: Tensor) -> Tensor:
    """Place of each value in its row, from 0; equal values share the mean of their places. (B, N) to (B, N)."""
    ordered = values.sort(dim=1).values
    first, behind = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    return (first + behind - 1).to(values.dtype) / 2


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    return functional.cosine_similarity(one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True))
