"""Run a NIR file in SpikingJelly: a process of its own, in a Python environment of its own.

SpikingJelly 2 wants Python 3.11 and pins that this package does not share; `make readers` builds the environment.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nir
import numpy as np

from snnkd_deploy.errors import RuntimeMissingError
from snnkd_deploy.ir import Array
from snnkd_deploy.simulate import Record

from ._nir_file import DT, Network, read, samples_in, whole
from ._nir_snntorch import module_name, nirtorch_misreadings

RUNNER = Path(__file__).with_name("_nir_spikingjelly_runner.py")
VARIABLE, FOLDER = "SNNKD_READERS_PYTHON", ".venv-readers"
SECONDS = 600.0
HOW_TO = f"""SpikingJelly is not installed; `make readers` in the source of this package gets it,
or let {VARIABLE} name a Python (3.11 or later) that has spikingjelly 2.0 and nir 1.0.8"""


def python() -> Path:
    """The interpreter that has SpikingJelly; RuntimeMissingError says how to get one."""
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise RuntimeMissingError(f"{VARIABLE} names {named}, which is no file")
        return Path(named)
    for place in (Path.cwd(), RUNNER.parents[1]):
        if (found := place / FOLDER / "bin/python").is_file():
            return found
    raise RuntimeMissingError(HOW_TO)


def run(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Record:
    """The Record of integer `inputs`, `(samples, *shape)` or `(time, samples, *shape)`.

    BundleError if the file is damaged, RuntimeMissingError without SpikingJelly or if it would read another network.
    """
    network = read(path)
    samples_in(network, inputs, path)
    interpreter = python()
    if problems := list(misreadings(network)):
        reasons = "".join(f"\n  - {problem}" for problem in problems)
        raise RuntimeMissingError(f"SpikingJelly 2.0.0 cannot read this file:{reasons}")
    frames = (inputs[None] if network.static else inputs).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="snnkd-readers-") as folder:
        request, answer = Path(folder, "request.npz"), Path(folder, "answer.npz")
        modules = [module_name(name) for name in network.neurons]
        np.savez(request, frames=frames, timesteps=network.timesteps, modules=np.array(modules, dtype=str))
        # -P: beside the runner lies a module called nir, which is not the package
        _call([str(interpreter), "-P", str(RUNNER), str(path), str(request), str(answer)])
        with np.load(answer) as found:
            spikes = {name: found[f"spikes_{index}"] for index, name in enumerate(network.neurons)}
            return Record(spikes, whole(found["logits"]))


def misreadings(network: Network) -> Iterator[str]:
    """Where SpikingJelly 2.0.0 with nirtorch 2.6 fails, or builds another network without saying so."""
    yield from nirtorch_misreadings(network)
    for name, node in network.nodes.items():
        if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF) and np.ptp(node.v_threshold) > 0:
            yield f"{name}: thresholds differ between its neurons; it takes one per layer"
        taus = [getattr(node, key) for key in ("tau", "tau_mem", "tau_syn") if hasattr(node, key)]
        if any(np.ptp(tau) > 0 for tau in taus):
            yield f"{name}: decays differ between its neurons; it takes one per layer"
        if isinstance(node, nir.LIF) and node.tau.min() <= DT:
            yield f"{name}: decay 0; it takes a tau of more than one step"


def _call(command: list[str]) -> None:
    """RuntimeMissingError with the reader's own last words where it does not answer."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)  # what belongs to this interpreter is not the other's
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS,
            env=environment, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise RuntimeMissingError(f"{command[0]} did not run SpikingJelly: {problem}") from problem
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-3:]) or "it said nothing"
        raise RuntimeMissingError(f"SpikingJelly in {command[0]} could not run the file: {last}")
