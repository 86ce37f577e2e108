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


def saliency_map(values: Tensor) -> Tensor:
    """One value per pixel, (B, H, W), of a saliency (B, C, H, W) or (B, T, C, H, W).

    The largest of the channels, as Simonyan et al. 2014 show colours; of frames the mean over time.
    """
    return (values.mean(1) if values.ndim == 5 else values).amax(1)


def agreement(student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor) -> Agreement:
    """How far the saliency of student and teacher agrees, as Hu et al. 2025 measure what distillation transfers.

    Their exact measure could not be read; these are the cosine and the rank correlation per sample, averaged.
    A network that does not react to a sample at all agrees on it with 0.
    """
    one, other = (saliency(network, images, labels) for network in (student, teacher))
    return Agreement(cosines(one, other).mean().item(), spearmans(one, other).mean().item())


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Of each sample of two saliencies (B, ...): (B,)."""
    return functional.cosine_similarity(one.flatten(1), other.flatten(1))


def spearmans(one: Tensor, other: Tensor) -> Tensor:
    """Rank correlation of each sample of two saliencies (B, ...): (B,)."""
    return cosines(*(_centred(ranks(values.flatten(1))) for values in (one, other)))


def ranks(values: Tensor) -> Tensor:
    """Place of each value in its row, from 0; equal values share the mean of their places. (B, N) to (B, N)."""
    ordered = values.sort(dim=1).values
    first, behind = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    return (first + behind - 1).to(values.dtype) / 2


def without(images: Tensor, order: Tensor, share: float) -> Tensor:
    """Images (B, ..., C, H, W) with the pixels blurred that are largest in `order` (B, H, W).

    `share` of the pixels, rounded, in all frames: the deletion of Petsiuk et al. 2018. A constant in their place would
    draw edges of its own; the blur is the mean over a window of about a third of the picture.
    """
    flat = order.flatten(1)
    first = flat.argsort(dim=1, descending=True, stable=True)[:, : round(share * flat.shape[1])]
    gone = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, first, value=True).view_as(order)
    return torch.where(gone.view(len(order), *(1,) * (images.ndim - 3), *order.shape[1:]), _blurred(images), images)


def _blurred(images: Tensor) -> Tensor:
    around = [size // 6 for size in images.shape[-2:]]
    window = [2 * size + 1 for size in around]
    flat = images.flatten(0, -4)
    return functional.avg_pool2d(flat, window, 1, around, count_include_pad=False).view(images.shape)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)
