"""Sums of tensors over steps, samples and features, as counting needs them: exact, and close to the speed of memory.

Torch sums float tensors slowly and multiplies matrices fast, so sums are products with ones; whole numbers below 2**24
are exact in float32. A step is worked on as a whole while it is in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from snnkd_deploy.ir import Array

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Summed:
    """What `(time * batch, *shape)` adds up to; of all samples at once a batch is 1."""

    values: Tensor
    """`(batch, *shape)`: absolute values over steps."""
    events: Tensor
    """`(batch, *shape)`: at how many steps it is not zero."""
    by_step: Tensor
    """`(time, batch)`: absolute values over the shape."""


def summed(x: Tensor, steps: int, per_sample: bool, spikes: bool, signed: bool) -> Summed:
    """`spikes`: all values are 0 or one other; `signed`: some may be negative."""
    rows, restored = rows_of(x)
    values: list[Tensor] = []
    events: list[Tensor] = []
    by_step: list[Tensor] = []
    add = _add_up if per_sample else _add_rows
    for part in rows.split(len(rows) // steps):
        size = part.abs() if signed else part
        add(values, size)
        by_step.append(size @ ones(size, size.shape[1]) if per_sample else values[-1].sum(1))
        if not spikes:
            add(events, size.sign())
    total = sum_of(values)
    found = total if spikes else sum_of(events)
    return Summed(restored(total), restored(found), torch.stack(by_step))


def sum_of(parts: list[Tensor]) -> Tensor:
    """Of tensors of one shape."""
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _add_up(kept: list[Tensor], part: Tensor) -> None:
    """Each sample for itself."""
    if kept:
        kept[0] += part
    else:
        kept.append(part.clone())


def _add_rows(kept: list[Tensor], part: Tensor) -> None:
    """All samples at once, each step for itself."""
    kept.append((ones(part, len(part)) @ part)[None])


def rows_of(x: Tensor) -> tuple[Tensor, Change]:
    """A matrix of one row a step and sample, in the order of memory, and what gives rows their shape again."""
    exact, shape = wide(x.detach()), x.shape[1:]
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        turned = shape[1:] + shape[:1]
        return exact.permute(0, 2, 3, 1).flatten(1), lambda rows: rows.view(-1, *turned).permute(0, 3, 1, 2)
    return exact.flatten(1), lambda rows: rows.view(-1, *shape)


def wide(x: Tensor) -> Tensor:
    """In a type whose whole numbers are exact up to 2**24."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def ones(like: Tensor, count: int) -> Tensor:
    """A row of ones of the same type, at the same place."""
    return torch.ones(count, dtype=like.dtype, device=like.device)


def whole(x: Tensor) -> Array:
    """The whole numbers that rounding left it close to."""
    return np.rint(numbers(wide(x)))


def numbers(x: Tensor) -> Array:
    """The same in numpy."""
    return np.asarray(x.detach().cpu().numpy())
