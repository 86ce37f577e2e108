"""In bfloat16 every method and engine computes what it computes in float32, but for rounding."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from snnkd_deploy.distill import create, methods
from snnkd_deploy.snn.engines import ENGINES, load_engine
from tests.distill.setups import batch, pair

VARIANTS: list[tuple[str, dict[str, Any]]] = [*((name, {}) for name in methods()), ("feature", {"feature": "membrane"})]
CASES = [
    (engine, *variant)
    for engine in ENGINES
    for variant in VARIANTS
    if create(variant[0], pair().setup, **variant[1]).needs <= ENGINES[engine].gives
]


def step(engine: str, name: str, options: dict[str, Any], narrow: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Losses, and the gradient of all parameters as one vector."""
    networks = pair(width=8, timesteps=3)
    method = create(name, networks.setup, **options)
    images, labels = batch(32)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if narrow else nullcontext():
        seen = load_engine(engine, name, method.needs).outputs(networks.student, images).widened()
        taught = networks.teacher.outputs(images).widened()
    torch.manual_seed(0)
    losses = method.losses(seen, taught, images, labels)
    torch.stack(list(losses.values())).sum().backward()
    slopes = [p.grad for p in (*networks.student.parameters(), *method.parameters())]
    return losses, torch.cat([slope.flatten() for slope in slopes if slope is not None])


@pytest.mark.parametrize(("engine", "name", "options"), CASES, ids=str)
def test_a_step_in_bfloat16_stays_close_to_float32(engine: str, name: str, options: dict[str, Any]) -> None:
    losses, wide = step(engine, name, options, narrow=False)
    rounded, narrow = step(engine, name, options, narrow=True)
    assert wide.shape == narrow.shape  # of no parameter the gradient is lost
    assert all(loss.dtype == torch.float32 for loss in rounded.values())
    for term in losses:
        assert rounded[term].item() == pytest.approx(losses[term].item(), rel=0.03)
    assert not torch.equal(wide, narrow)
    assert functional.cosine_similarity(wide, narrow, dim=0) > 0.97
