"""Run a generated snnTorch module in a process of its own: MODULE REQUEST ANSWER, with torch and snnTorch alone.

REQUEST (npz): `inputs`, `axis` of the samples, `layers` (attributes of the neurons). ANSWER (npz): `spikes_N` uint8
`(time, samples, *shape)` for each of them, `logits`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

MISSING, BATCH = 64, 64
"""Exit code without torch or snnTorch; samples at a time."""


def main(module: str, request: str, answer: str) -> None:
    """Listen to the neurons while the module's own `infer` runs."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(module).parent))
    generated = importlib.import_module(Path(module).stem)
    network = generated.load()
    with np.load(request) as given:
        inputs, axis, names = torch.from_numpy(given["inputs"]), int(given["axis"]), given["layers"].tolist()
    fired: list[list[Any]] = [[] for _ in names]
    for place, name in enumerate(names):
        getattr(network, name).register_forward_hook(lambda _, __, spikes, to=fired[place]: to.append(spikes.byte()))
    logits: list[Any] = []
    batches: list[list[Any]] = [[] for _ in names]
    for part in inputs.split(BATCH, dim=axis):
        logits.append(generated.infer(network, part))
        for steps, batch in zip(fired, batches, strict=True):
            batch.append(torch.stack(steps))
            steps.clear()
    spikes: dict[str, Any] = {f"spikes_{place}": torch.cat(batch, dim=1).numpy() for place, batch in enumerate(batches)}
    np.savez(answer, logits=torch.cat(logits).numpy(), **spikes)


if __name__ == "__main__":
    here = Path(__file__).parent.resolve()  # its modules are called as the packages that they write for
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]
    sys.modules["snnkd_deploy"] = None  # type: ignore[assignment]  # the generated module must do without
    sys.dont_write_bytecode = True
    try:
        import snntorch  # noqa: F401
    except ImportError as problem:
        sys.stderr.write(f"{problem}\n")
        sys.exit(MISSING)
    main(*sys.argv[1:])
