"""Runs in an environment with SpikingJelly: FILE REQUEST ANSWER. Reads a NIR file, feeds it, stores what came out.

REQUEST: `frames` float32 `(time or 1, samples, *shape)`, `timesteps`, `modules` (names of the neurons there).
ANSWER: `logits` float64 sums over the steps, and `spikes_N` uint8 `(time, samples, *shape)` of each of the modules.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from spikingjelly.activation_based.nir_exchange import import_from_nir


def main(file: str, request: str, answer: str) -> None:
    """One call per step; SpikingJelly's state goes back in."""
    torch.set_num_threads(1)
    with np.load(request) as given:
        frames, timesteps, names = torch.from_numpy(given["frames"]), int(given["timesteps"]), list(given["modules"])
    model = import_from_nir(file, dt=1e-4)
    modules = dict(model.named_modules())
    fired: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for name in names:
        modules[name].register_forward_hook(lambda _, __, output, name=name: fired[name].append(output[0].numpy()))
    outputs, state = [], None
    with torch.no_grad():
        for step in range(timesteps):
            output, state = model(frames[step if len(frames) > 1 else 0], state)
            outputs.append(output.numpy().astype(np.float64))
    answers = {f"spikes_{index}": np.stack(fired[name]).astype(np.uint8) for index, name in enumerate(names)}
    answers["logits"] = np.sum(outputs, axis=0)
    np.savez(answer, **answers)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
