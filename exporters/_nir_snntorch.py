"""Run a NIR file in snnTorch, as its users do: through snnTorch's importer, one call per step.

Samples go in one by one: the importer hands NIR's `start_dim`, which knows no batch, to a torch.nn.Flatten that does.
"""

from __future__ import annotations

import io
import keyword
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import nir
import numpy as np

from snnkd_deploy.errors import RuntimeMissingError
from snnkd_deploy.ir import Array
from snnkd_deploy.simulate import Record

from ._nir_file import OLD, Network, read, samples_in, whole


def run(path: Path, inputs: Array, loader: Mapping[str, Any]) -> Record:
    """The Record of integer `inputs`, `(samples, *shape)` or `(time, samples, *shape)`.

    BundleError if the file is damaged, RuntimeMissingError if snnTorch is not here or would read another network.
    """
    network = read(path)
    count = samples_in(network, inputs, path)
    version = _version()
    if problems := list(misreadings(network)):
        reasons = "".join(f"\n  - {problem}" for problem in problems)
        raise RuntimeMissingError(f"snnTorch {version} cannot read this file:{reasons}")
    try:
        reader = _Reader(path, network)
        samples = [inputs[None, index] if network.static else inputs[:, index] for index in range(count)]
        answers = [reader.present(sample) for sample in samples]
    except Exception as error:  # whatever torch, nirtorch and snnTorch raise: the file was not run
        raise RuntimeMissingError(f"snnTorch {version} could not run {path}: {error}") from error
    spikes = {name: np.stack([fired[name] for fired, _ in answers], axis=1) for name in network.neurons}
    return Record(spikes, whole(np.stack([logits for _, logits in answers])))


def misreadings(network: Network) -> Iterator[str]:
    """Where snnTorch 1.0.0 with nirtorch 2.6 fails, or builds another network without saying so."""
    yield from nirtorch_misreadings(network)
    for name, node in network.nodes.items():
        if isinstance(node, nir.IF):
            yield f"{name}: an IF (decay 1) becomes a leaky neuron of decay 0.9 with reset by subtraction"
        if isinstance(node, nir.LIF | nir.CubaLIF) and np.ptp(node.v_threshold) > 0:
            yield f"{name}: thresholds differ between its neurons; it takes one per layer"


def nirtorch_misreadings(network: Network) -> Iterator[str]:
    """What nirtorch 2.6 and nir 1.0.8 do to the files of every framework that reads with them."""
    modules: dict[str, str] = {}
    if network.dialect == OLD and any(network.lasting(name) for name in network.neurons):
        yield "written for nir up to 1.0.5, reset by subtraction; nir 1.0.8 takes a missing v_reset for 0"
    for name, node in network.nodes.items():
        if isinstance(node, nir.Output) and len(network.sources[name]) > 1:
            yield f"{name}: {len(network.sources[name])} edges lead here; they are not summed at an Output"
        if isinstance(node, nir.SumPool2d) and int(np.prod(node.kernel_size)).bit_count() > 2:
            yield f"{name}: a sum over {np.prod(node.kernel_size)} values is computed as their rounded mean"
        if (other := modules.setdefault(module_name(name), name)) != name:
            yield f"{name}: becomes one module with {other}"


def module_name(name: str) -> str:
    """What nirtorch calls the module of a node."""
    plain = name.replace(".", "_")
    return f"nir_node_{plain}" if keyword.iskeyword(plain) else plain


class _Reader:
    """A file as snnTorch imports it."""

    def __init__(self, path: Path, network: Network) -> None:
        from snntorch.import_nir import import_from_nir

        with redirect_stdout(io.StringIO()):
            self.model = import_from_nir(nir.read(path))
        self.timesteps = network.timesteps
        modules = dict(self.model.named_modules())
        self.neurons = {name: modules[module_name(name)] for name in network.neurons}
        self.fired: dict[str, list[Array]] = {}
        for name, module in self.neurons.items():
            module.register_forward_hook(self._listener(name))

    def present(self, frames: Array) -> tuple[dict[str, Array], Array]:
        """Spikes `(time, *shape)` of each layer and the sum of the outputs, for `(time or 1, *shape)` of one sample."""
        import torch

        for module in self.neurons.values():
            module.reset_mem()
        self.fired = {name: [] for name in self.neurons}
        steps = torch.from_numpy(frames.astype(np.float32))
        outputs, state = [], None
        with torch.no_grad():
            for step in range(self.timesteps):
                output, state = self.model(steps[step if len(steps) > 1 else 0], state)
                outputs.append(output.numpy().astype(np.float64))
        return {name: np.stack(fired).astype(np.uint8) for name, fired in self.fired.items()}, np.sum(outputs, axis=0)

    def _listener(self, name: str) -> Any:
        def listen(module: Any, arguments: Any, spikes: Any) -> None:
            self.fired[name].append(spikes.numpy())

        return listen


def _version() -> str:
    try:
        import snntorch
    except ImportError as error:
        raise RuntimeMissingError(f"snnTorch is not installed ({error}); pip install snntorch") from error
    return str(snntorch.__version__)
