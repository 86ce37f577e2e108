"""Networks of snnTorch whose sums are exact in float32, so that every framework sees the same spikes; and digits."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

from snnkd_deploy.data import load
from snnkd_deploy.ir import Array

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
STEPS, SAMPLES, BATCH = 4, 20, 5


def said(script: str, *arguments: str) -> Any:
    """The JSON that a module of this folder prints in the environment of the peers; skips where there is none."""
    if not PYTHON.exists():
        pytest.skip("the peers are not there: make peers")
    command = [str(PYTHON), "-W", "ignore", "-m", f"tests.peers.{script}", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def pictures() -> Array:
    """Digits `(samples, 1, 8, 8)` of whole numbers from 0 to 16."""
    return load("digits").test.integers(slice(SAMPLES))


def frames() -> Array:
    """The same as spikes `(samples, time, 1, 8, 8)`, drawn by their brightness."""
    drawn = np.random.default_rng(0).random((STEPS, *pictures().shape)) < pictures() / 20
    return np.moveaxis(drawn, 0, 1).astype(np.uint8)


class Dense(nn.Module):
    """Two layers, one step a call."""

    def __init__(self, reset: str = "subtract") -> None:
        super().__init__()
        options: dict[str, Any] = {"beta": 0.5, "init_hidden": True, "reset_mechanism": reset}
        self.flat = nn.Flatten()
        self.one, self.lif1 = nn.Linear(64, 30), snn.Leaky(threshold=4.0, **options)
        self.two, self.lif2 = nn.Linear(30, 10), snn.Leaky(threshold=0.5, output=True, **options)
        exact(self)

    def forward(self, x: Tensor) -> Any:
        return self.lif2(self.two(self.lif1(self.one(self.flat(x)))))


class Convolutional(nn.Module):
    """Padding, a stride, groups, a pool of spikes, a quarter of the weights zero."""

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = {"beta": 0.5, "init_hidden": True, "reset_mechanism": "zero"}
        self.one, self.lif1 = nn.Conv2d(1, 4, 3, padding=1), snn.Leaky(threshold=2.0, **options)
        self.two = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.lif2, self.pool, self.flat = snn.Leaky(threshold=0.25, **options), nn.AvgPool2d(2), nn.Flatten()
        self.three, self.lif3 = nn.Linear(24, 10), snn.Leaky(threshold=0.25, output=True, **options)
        exact(self)

    def forward(self, x: Tensor) -> Any:
        spikes = self.lif2(self.two(self.lif1(self.one(x))))
        return self.lif3(self.three(self.flat(self.pool(spikes))))


NETS: dict[str, Any] = {
    "dense": Dense,
    "zero": lambda: Dense("zero"),
    "convolutional": Convolutional,
}
DATA = {"pictures": pictures, "frames": frames}


def exact(network: nn.Module) -> None:
    """Weights of eighths, some of them zero."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if name.endswith(("weight", "bias")):
            eighths = torch.randint(-3, 5, parameter.shape, generator=generator)
            parameter.data = eighths.float() / 8
    network.eval()
