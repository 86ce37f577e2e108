"""Torch's convolutions and pools as nodes: of the kinds that targets hold where they can, else of the general ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from snnkd_deploy.ir import (
    Array,
    AvgPool,
    AvgPool2d,
    Conv,
    Conv2d,
    ConvTranspose,
    MaxPool,
    MaxPool2d,
    Node,
    Shape,
)


class Refusal(Exception):  # noqa: N818
    """Why one operation cannot become a node."""


Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def convolution(module: Convolution, shape: Shape) -> Node:
    """A Conv2d where padding is of zeros and the same at both ends, else a Conv."""
    before, after = _padding(module)
    options: dict[str, Any] = {
        "name": "", "inputs": (), "weight": array(module.weight), "bias": _bias(module),
        "stride": tuple(module.stride), "dilation": tuple(module.dilation), "groups": module.groups,
    }  # fmt: skip
    if len(module.stride) == 2 and module.padding_mode == "zeros" and before == after:
        return Conv2d(padding=cast("tuple[int, int]", before), **options)
    return Conv(before=before, after=after, mode=cast("Any", module.padding_mode), **options)


def transposed(module: Transposed, shape: Shape) -> Node:
    """A ConvTranspose."""
    return ConvTranspose(
        name="",
        inputs=(),
        weight=array(module.weight),
        bias=_bias(module),
        stride=tuple(module.stride),
        padding=_each(module.padding, len(module.stride)),
        output_padding=_each(module.output_padding, len(module.stride)),
        dilation=tuple(module.dilation),
        groups=module.groups,
    )


def avgpool(rank: int) -> Callable[[Any, Shape], Node]:
    """The converter of an AvgPool of that rank."""

    def convert(module: Any, shape: Shape) -> Node:
        padding = _each(module.padding, rank)
        if module.ceil_mode or getattr(module, "divisor_override", None):
            raise Refusal("ceil_mode and divisor_override are not accepted")
        if any(padding) and not module.count_include_pad:
            raise Refusal("padding with count_include_pad=False is not accepted")
        return _pool(AvgPool2d, AvgPool, _each(module.kernel_size, rank), _each(module.stride, rank), padding)

    return convert


def maxpool(rank: int) -> Callable[[Any, Shape], Node]:
    """The converter of a MaxPool of that rank."""

    def convert(module: Any, shape: Shape) -> Node:
        if module.ceil_mode or _each(module.dilation, rank) != (1,) * rank or module.return_indices:
            raise Refusal("dilation, ceil_mode and return_indices are not accepted")
        sides = (_each(one, rank) for one in (module.kernel_size, module.stride, module.padding))
        return _pool(MaxPool2d, MaxPool, *sides)

    return convert


def adaptive(rank: int) -> Callable[[Any, Shape], Node]:
    """The converter of an AdaptiveAvgPool of that rank: windows of one size, or a refusal."""

    def convert(module: Any, shape: Shape) -> Node:
        if len(shape) != 1 + rank:
            raise Refusal(f"takes {rank} sides, met shape {shape}")
        wanted = [
            size if size is not None else side
            for size, side in zip(_each(module.output_size, rank), shape[1:], strict=True)
        ]
        if any(side % size for side, size in zip(shape[1:], wanted, strict=True)):
            raise Refusal(f"{shape} does not divide into {tuple(wanted)} windows of one size")
        kernel = tuple(side // size for side, size in zip(shape[1:], wanted, strict=True))
        return _pool(AvgPool2d, AvgPool, kernel, kernel, (0,) * rank)

    return convert


def array(tensor: Tensor | None) -> Array:
    """Its values in float64."""
    assert tensor is not None
    return np.asarray(tensor.detach().cpu().double().numpy())


def _pool(flat: Any, general: Any, kernel: Shape, stride: Shape, padding: Shape) -> Node:
    """Of pictures and without padding the kind that targets hold."""
    options = {"name": "", "inputs": (), "kernel": kernel, "stride": stride}
    made: Node = flat(**options) if len(kernel) == 2 and not any(padding) else general(**options, padding=padding)
    return made


def _bias(module: Convolution | Transposed) -> Array:
    return np.zeros(module.out_channels) if module.bias is None else array(module.bias)


def _padding(module: Convolution) -> tuple[Shape, Shape]:
    """In front of each side and behind it; torch's 'same' puts what cannot be halved behind."""
    if not isinstance(module.padding, str):
        return (tuple(module.padding),) * 2
    if module.padding == "valid":
        return ((0,) * len(module.stride),) * 2
    total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return tuple(one // 2 for one in total), tuple(one - one // 2 for one in total)


def _each(value: Any, rank: int) -> Shape:
    """One number for all sides, or one for each."""
    listed = tuple(value) if isinstance(value, tuple | list) else (value,)
    return listed * rank if len(listed) == 1 else listed


CONVERTERS: dict[type[nn.Module], Callable[[Any, Shape], Node]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), transposed),
    **{kind: avgpool(rank) for rank, kind in enumerate((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), start=1)},
    **{kind: maxpool(rank) for rank, kind in enumerate((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), start=1)},
    nn.AdaptiveAvgPool1d: adaptive(1),
    nn.AdaptiveAvgPool2d: adaptive(2),
    nn.AdaptiveAvgPool3d: adaptive(3),
}
