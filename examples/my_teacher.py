"""A plain torch network as teacher: snnkd-deploy train --teacher examples/my_teacher.py:build

Started itself it trains that network and writes its weights, for --teacher-weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnkd_deploy.data import load


class Block(nn.Module):
    """Two convolutions with a shortcut, then half the size."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.relu(self.norm1(self.conv1(x)))
        second: Tensor = self.pool(functional.relu(self.norm2(self.conv2(first)) + first))
        return second


class Teacher(nn.Module):
    """Two blocks and a linear readout."""

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.first, self.second = Block(channels, 16), Block(16, 32)
        self.readout = nn.Linear(32 * (height // 4) * (width // 4), classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.second(self.first(x)).flatten(1))
        return logits


def build(classes: int, shape: Sequence[int]) -> nn.Module:
    """What `--teacher` calls; a function without these keywords will do as well."""
    return Teacher(shape, classes)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("my_teacher.pt"), help="file for the weights")
    options.add_argument("--dataset", default="digits")
    options.add_argument("--data-dir", type=Path, help="folder of a data set that is on your disk")
    options.add_argument("--epochs", type=int, default=20)
    given = options.parse_args()

    data = load(given.dataset, given.data_dir)
    images, labels = torch.tensor(data.train.images) * data.scale, torch.tensor(data.train.labels)
    network = build(len(data.classes), images.shape[1:]).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(given.epochs):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
    torch.save(network.state_dict(), given.out)
    print("weights in", given.out)


if __name__ == "__main__":
    main()
