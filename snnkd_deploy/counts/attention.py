"""The work of an attention: coincidences and additions, in the order of its products that takes fewer."""

from __future__ import annotations

from typing import Literal

import numpy as np

from snnkd_deploy.ir import Array, Attention
from snnkd_deploy.numerics import by_heads


def products(node: Attention, factors: tuple[Array, ...]) -> dict[str, Array]:
    """Of each sample: events of q, k and v, coincidences of the first product, additions of the second."""
    q, k, v = (by_heads(one != 0, node.heads).astype(np.int64) for one in np.broadcast_arrays(*factors))
    channels, tokens = q.shape[-2:]
    if order(channels, tokens) == "context":
        met, added = k.sum(axis=-2) * v.sum(axis=-2), q * channels
    else:
        met, added = k.sum(axis=-1) * q.sum(axis=-1), v * tokens
    found = {"events_in": q + k + v, "attention_and": met, "attention_adds": added}
    return {what: number.sum(axis=(0, *range(2, number.ndim))) for what, number in found.items()}


def order(channels: int, tokens: int) -> Literal["context", "scores"]:
    """Which product of an attention comes first; `channels` are those of a head."""
    return "context" if channels <= tokens else "scores"
