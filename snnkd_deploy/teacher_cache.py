"""What a teacher says of each training image, computed once.

The key is the image itself, as the teacher sees it behind any augmentation, so an answer is never that of another
image. Only unchanged images come again, though: with random changes a cache is refused, for it would fill and never
answer; so it is with several processes, each of which meets other images in each epoch. A batch is answered from memory
only if all of it is known; else all of it is computed, as without a cache.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from snnkd_deploy.errors import ConfigError
from snnkd_deploy.snn.models import Network, Outputs

LIMIT = 2 << 30  # bytes


def check_again(augment: str, processes: int) -> None:
    """ConfigError if images would not come again."""
    problems = []
    if set(augment.split("+")) != {"none"}:
        problems.append(
            f"augment {augment!r} changes images anew each time, so no answer of the teacher can be used again; "
            "augment none is needed"
        )
    if processes > 1:
        problems.append(
            f"each of {processes} processes meets other images in each epoch, so answers are seldom used again; one "
            "process is needed"
        )
    if problems:
        raise ConfigError("\n".join(f"cache_teacher: {problem}" for problem in problems))


def check_room(images: int, shapes: Iterable[tuple[int, ...]]) -> None:
    """ConfigError if values of these shapes (each of one image) need too much room."""
    size = images * 4 * sum(math.prod(shape) for shape in shapes)
    if size > LIMIT:
        raise ConfigError(
            f"cache_teacher: {images} images need {size / (1 << 30):.1f} GiB, up to {LIMIT >> 30} are accepted; "
            "a method that looks at the logits alone needs less"
        )


class Remembered:
    """`outputs` of a frozen teacher in eval mode, kept for up to `capacity` images; taps only if asked for.

    Of encoded images the teacher sees the picture in front, whose spikes are others each time.
    """

    def __init__(self, teacher: Network, capacity: int, taps: bool, encoded: bool = False) -> None:
        self.teacher, self.capacity, self.taps, self.encoded = teacher, capacity, taps, encoded
        self.rows: dict[bytes, int] = {}
        self.kept: list[Tensor] = []  # logits, then taps: (capacity, ...) each

    def outputs(self, images: Tensor) -> Outputs:
        """What the teacher says of a batch (B, ...); membranes are not kept, a teacher has none."""
        seen = (images[:, 0] if self.encoded else images).cpu().numpy()
        keys = [hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in seen]
        if any(key not in self.rows for key in keys):
            found = self.teacher.outputs(images)
            self._keep(keys, [found.logits, *(found.taps if self.taps else ())])
            return found
        rows = torch.tensor([self.rows[key] for key in keys], device=images.device)
        logits, *taps = (_ordered(kept[rows], kept) for kept in self.kept)
        return Outputs(logits, logits[None], tuple(taps))

    def _keep(self, keys: Sequence[bytes], values: Sequence[Tensor]) -> None:
        if not self.kept:
            self.kept = [_room(value, self.capacity) for value in values]
        for place, key in enumerate(keys):
            if key not in self.rows and len(self.rows) < self.capacity:
                row = self.rows[key] = len(self.rows)
                for kept, value in zip(self.kept, values, strict=True):
                    kept[row] = value[place]


def _room(value: Tensor, capacity: int) -> Tensor:
    """(capacity, ...) for values (B, ...), in their memory order."""
    return _ordered(value.new_empty(capacity, *value.shape[1:]), value)


def _ordered(value: Tensor, like: Tensor) -> Tensor:
    """The same values in the memory order of `like`: the next operation must not round in another order."""
    last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
    return value.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
