"""What NeuroBench says of a network: `python -m tests.peers.neurobench_side NET DATA`, in its own environment."""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity, Footprint
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
from neurobench.models import SNNTorchModel
from torch.utils.data import DataLoader, TensorDataset

from tests.peers.nets import BATCH, DATA, NETS, STEPS

STATIC, WORKLOAD = [Footprint, ConnectionSparsity], [ActivationSparsity, SynapticOperations, MembraneUpdates]


def main(net: str, kind: str) -> None:
    """Pictures are shown at each step."""
    x = DATA[kind]()
    shown = x if kind == "frames" else np.repeat(x[:, None], STEPS, axis=1)
    data = TensorDataset(torch.from_numpy(shown).float(), torch.zeros(len(shown)))
    benchmark = Benchmark(SNNTorchModel(NETS[net]()), DataLoader(data, BATCH), [], [], [STATIC, WORKLOAD])
    with torch.no_grad():
        print(json.dumps(benchmark.run(quiet=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
