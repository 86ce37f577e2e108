"""Several processes that train as one: each takes its slice of every batch, and what depends on all of it is added up.

Process r of N holds the r-th of N equal slices of each (micro-)batch. With one process, which is what there is unless
`launch` joined several, every function here gives back what it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from snnkd_deploy.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """One of `size` processes; 0 leads: it alone writes files and shows progress."""

    rank: int = 0
    size: int = 1
    device: torch.device | None = None  # what it works on; None: as the settings say


_here = Process()


def here() -> Process:
    """This process."""
    return _here


def size() -> int:
    """How many processes train together."""
    return _here.size


def leads() -> bool:
    """Whether this process writes the files and shows the progress."""
    return _here.rank == 0


@contextmanager
def taking_part(process: Process) -> Iterator[None]:
    """Be this process of a group that torch.distributed has set up already."""
    global _here
    _here, before = process, _here
    try:
        yield
    finally:
        _here = before


def check_batch(images: int, processes: int, accumulate: int) -> None:
    """ConfigError unless a batch can be cut into equal parts, each micro-batch with enough for BatchNorm."""
    parts = processes * accumulate
    if images % parts or images // accumulate < 2:
        raise ConfigError(
            f"a batch of {images} images cannot be cut into {accumulate} micro-batches of at least 2 images, each in "
            f"{processes} equal slices, one per process; batch_size must be a multiple of {parts}"
        )


def parts(batch: Tensor, labels: Tensor, accumulate: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The slices of this process, one of each of `accumulate` micro-batches, of a batch (B, ...) and its labels."""
    for images, answers in zip(batch.chunk(accumulate), labels.chunk(accumulate), strict=True):
        rows = _slice(len(answers) // _here.size)
        yield images[rows], answers[rows]


def drawn(draw: Callable[[int], Tensor], count: int) -> Tensor:
    """Random numbers (count, ...) for the samples of this process; `draw(n)` makes those of n samples, (n, ...).

    They are drawn for the samples of all processes, so that each sample gets what it would get with one process.
    """
    return draw(count) if _here.size == 1 else draw(count * _here.size)[_slice(count)]


def _slice(count: int) -> slice:
    return slice(_here.rank * count, (_here.rank + 1) * count)


def total(tensor: Tensor) -> Tensor:
    """The sum over the processes, in place; no gradient."""
    if _here.size > 1:
        distributed.all_reduce(tensor)
    return tensor


def gathered(tensor: Tensor) -> Tensor:
    """The tensors of all processes, (N, ...), in their order; no gradient."""
    if _here.size == 1:
        return tensor[None]
    every = [torch.empty_like(tensor) for _ in range(_here.size)]
    distributed.all_gather(every, tensor.contiguous())
    return torch.stack(every)


def summed(values: Sequence[int]) -> list[int]:
    """Each number summed over the processes."""
    if _here.size == 1:
        return list(values)
    return [int(value) for value in total(torch.tensor(values, device=_here.device))]


def first(action: Callable[[], T]) -> T:
    """What `action` returns in the process that leads, where alone it runs; the others wait for it."""
    results = [action() if leads() else None]
    if _here.size > 1:
        distributed.broadcast_object_list(results, 0)
    return results[0]  # type: ignore[return-value]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, as one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if _here.size == 1 or not gradients:
        return
    mean = total(torch.cat([gradient.flatten() for gradient in gradients])) / _here.size
    for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
