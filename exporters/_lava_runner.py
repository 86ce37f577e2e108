"""Run a netx file in real lava-dl: a script of its own, for the Python environment that holds lava, without torch.

    python _lava_runner.py NET REQUEST.npz ANSWER.npz [--watch-stdin]

REQUEST holds `inputs`, int32 `(samples, steps, channels, height, width)` or `(samples, steps, features)`, and the
scalars `reset_interval`, `reset_offset`, `input_message_bits`, `blocks` (how many are expected) and `entry`: "source"
feeds the network's input port, "input-neuron" the current of the first block's neurons.
ANSWER holds `spikes_0 ..`, uint8 `(samples, steps, ...)` in torch's order, block k's answer to that very sample and
step (the pipeline delay is taken out); `potential`, int64 `(samples, neurons)`, the membrane of the last block at the
end of each sample in units of 1/64 weight; `blocks` and the versions. Samples are streamed back to back; lava's own
reset keeps them apart.

With --watch-stdin it ends, children too, as soon as its standard input closes: nothing outlives a parent that was
killed. Code 64 means that the file would hang or crash lava, and that the last line of stderr says why.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path
from typing import Any

import h5py
import numpy as np

REFUSED = 64
BROKEN = 70
RUNS = ("input", "flatten", "conv", "dense")


def allow_dataclass_defaults() -> None:
    """Let a dataclass instance be the default of a field: two classes of lava-nc 0.10.0 do, Python 3.11 forbids it."""
    if sys.version_info < (3, 11):
        return
    strict = dataclasses._get_field  # type: ignore[attr-defined]

    def lenient(owner: type, name: str, kind: Any, *rest: Any) -> Any:
        default = getattr(owner, name, None)
        if not dataclasses.is_dataclass(default) or isinstance(default, type):
            return strict(owner, name, kind, *rest)
        setattr(owner, name, dataclasses.field(default_factory=lambda: default))
        return strict(owner, name, kind, *rest)

    dataclasses._get_field = lenient  # type: ignore[attr-defined]


def stub_torch() -> None:
    """Stand-ins for the modules that netx imports for torch users and resonate-and-fire neurons alone."""
    resonate = types.ModuleType("lava.lib.dl.slayer.neuron.rf")
    resonate.neuron_params = None  # type: ignore[attr-defined]
    for name in ("lava.lib.dl.slayer", "lava.lib.dl.slayer.neuron"):
        package = types.ModuleType(name)
        package.__path__ = []
        sys.modules[name] = package
    sys.modules[resonate.__name__] = resonate
    torch = types.ModuleType("torch")
    torch.tensor = object  # type: ignore[attr-defined]
    sys.modules["torch"] = torch


allow_dataclass_defaults()
stub_torch()

from lava.lib.dl.netx import hdf5  # noqa: E402
from lava.magma.core.decorator import implements, requires  # noqa: E402
from lava.magma.core.model.py.model import PyLoihiProcessModel  # noqa: E402
from lava.magma.core.model.py.ports import PyInPort, PyOutPort, PyRefPort  # noqa: E402
from lava.magma.core.model.py.type import LavaPyType  # noqa: E402
from lava.magma.core.process.ports.ports import InPort, OutPort, RefPort  # noqa: E402
from lava.magma.core.process.process import AbstractProcess  # noqa: E402
from lava.magma.core.resources import CPU  # noqa: E402
from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.magma.core.run_configs import Loihi2SimCfg  # noqa: E402
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol  # noqa: E402
from lava.magma.runtime.message_infrastructure import multiprocessing as actors  # noqa: E402


class Feed(AbstractProcess):  # type: ignore[misc]
    """Sends row t of the array in file `path` at step t, then zeros."""

    def __init__(self, shape: tuple[int, ...], path: str) -> None:
        super().__init__(path=path)
        self.s_out = OutPort(shape=shape)


class Tap(AbstractProcess):  # type: ignore[misc]
    """Writes what arrives at step t into row t - delay of the array in file `path`."""

    def __init__(self, shape: tuple[int, ...], path: str, delay: int) -> None:
        super().__init__(path=path, delay=delay)
        self.a_in = InPort(shape=shape)


class Probe(AbstractProcess):  # type: ignore[misc]
    """Writes a variable, as it is at the end of each sample of `interval` steps, into the array in file `path`."""

    def __init__(self, variable: Any, path: str, delay: int, interval: int) -> None:
        super().__init__(path=path, delay=delay, interval=interval)
        self.state = RefPort(variable.shape)
        self.state.connect_var(variable)


@implements(proc=Feed, protocol=LoihiProtocol)
@requires(CPU)
class FeedModel(PyLoihiProcessModel):  # type: ignore[misc]
    """Feed on the CPU."""

    s_out: Any = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.rows = np.load(proc_params["path"], mmap_mode="r")

    def run_spk(self) -> None:
        """Once per step."""
        row = self.time_step - 1
        self.s_out.send(np.array(self.rows[row]) if row < len(self.rows) else np.zeros(self.rows.shape[1:], np.int32))


@implements(proc=Tap, protocol=LoihiProtocol)
@requires(CPU)
class TapModel(PyLoihiProcessModel):  # type: ignore[misc]
    """Tap on the CPU."""

    a_in: Any = LavaPyType(PyInPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.rows = np.load(proc_params["path"], mmap_mode="r+")
        self.delay = proc_params["delay"]

    def run_spk(self) -> None:
        """Once per step."""
        values, row = self.a_in.recv(), self.time_step - 1 - self.delay
        if 0 <= row < len(self.rows):
            self.rows[row] = values


@implements(proc=Probe, protocol=LoihiProtocol)
@requires(CPU)
class ProbeModel(PyLoihiProcessModel):  # type: ignore[misc]
    """Probe on the CPU."""

    state: Any = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.rows = np.load(proc_params["path"], mmap_mode="r+")
        self.delay, self.interval = proc_params["delay"], proc_params["interval"]

    def post_guard(self) -> bool:
        """Whether this step is the last of a sample."""
        step = self.time_step - self.delay
        return bool(step > 0 and step % self.interval == 0 and step // self.interval <= len(self.rows))

    def run_post_mgmt(self) -> None:
        """Once per step for which the guard holds, after the neurons have stepped."""
        self.rows[(self.time_step - self.delay) // self.interval - 1] = self.state.read()


def to_lava(array: Any) -> Any:
    """`(rows, channels, height, width)` to lava's `(rows, width, height, channels)` and back; other arrays stay."""
    return array.transpose(0, 3, 2, 1) if array.ndim == 4 else array


def dangers(net: Path) -> list[str]:
    """What in this file makes lava-dl 0.6.0 hang, crash or leave layers out without a word."""
    try:
        with h5py.File(net, "r") as file:
            layers = file["layer"]
            names = [str(index) for index in range(len(layers))]
            return [text for name in names for text in _layer_dangers(f"layer/{name}", layers[name])]
    except (OSError, KeyError) as problem:
        return [f"not a netx file: {problem}"]


def _layer_dangers(name: str, layer: Any) -> list[str]:
    kind = np.ravel(layer["type"][()])[0].decode("ascii", "replace")
    if kind not in RUNS:
        return [f"{name}: type {kind!r}; lava-dl runs {', '.join(RUNS)}"]
    found = []
    if "neuron" in layer and np.ravel(layer["neuron/type"][()])[0] not in (b"CUBA", b"LOIHI"):
        found.append(f"{name}: only CUBA and LOIHI neurons run here")
    if "neuron/messageBits" in layer:
        found.append(f"{name}: neuron/messageBits makes lava hang")
    if kind == "dense" and not np.any(layer["weight"][()].astype(int)):
        found.append(f"{name}: all weights are zero, which netx cannot scale")
    if kind == "conv":
        sizes = [np.max(layer[key][()]) for key in ("stride", "padding", "dilation", "groups")]
        if max(*sizes, *layer["weight"].shape[2:4]) > 127:
            found.append(f"{name}: stride, padding, dilation, groups or kernel above 127 wraps in int8")
    return found


def run(net_path: Path, request: Any, folder: Path) -> dict[str, Any]:
    """Load the file, stream every sample through it, and return the answer; scratch files go into `folder`."""
    inputs, interval = request["inputs"], int(request["reset_interval"])
    samples, steps = inputs.shape[:2]
    rows = np.ascontiguousarray(to_lava(inputs.reshape(samples * steps, *inputs.shape[2:])), dtype=np.int32)
    net = hdf5.Network(
        net_config=str(net_path),
        input_shape=rows.shape[1:],
        input_message_bits=int(request["input_message_bits"]),
        reset_interval=interval,
        reset_offset=int(request["reset_offset"]),
    )
    if len(net) != int(request["blocks"]):
        raise SystemExit(f"netx made {len(net)} blocks of this file, {int(request['blocks'])} are expected")
    first = str(request["entry"]) == "input-neuron"
    models = _connect(net, rows, 0 if first else 1, samples, interval, folder)
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
    net.run(condition=RunSteps(num_steps=len(rows) + len(net) - first), run_cfg=config)
    net.stop()
    potential = to_lava(np.load(folder / "potential.npy"))
    answer = {"potential": np.ascontiguousarray(potential).reshape(samples, -1), "blocks": np.int64(len(net))}
    for index in range(len(net)):
        spikes = to_lava(np.load(folder / f"spikes_{index}.npy", mmap_mode="r"))
        answer[f"spikes_{index}"] = np.ascontiguousarray(spikes).reshape(samples, steps, *spikes.shape[1:])
    return answer


def _connect(net: Any, rows: Any, delay: int, samples: int, interval: int, folder: Path) -> dict[Any, Any]:
    """Put a feed before the network, a tap behind each block, a probe on the last; which model runs which of them."""
    np.save(folder / "inputs.npy", rows)
    feed = Feed(rows.shape[1:], str(folder / "inputs.npy"))
    feed.s_out.connect(net.inp if delay else net.in_layer.neuron.a_in)
    models: dict[Any, Any] = {feed: FeedModel}
    for index, block in enumerate(net.layers):
        path = str(folder / f"spikes_{index}.npy")
        np.lib.format.open_memmap(path, "w+", np.uint8, (len(rows), *block.shape))
        tap = Tap(block.shape, path, delay + index)
        block.neuron.s_out.connect(tap.a_in)
        models[tap] = TapModel
    path = str(folder / "potential.npy")
    neurons = net.layers[-1].neuron
    np.lib.format.open_memmap(path, "w+", np.int64, (samples, *neurons.v.shape))
    probe = Probe(neurons.v, path, delay + len(net) - 1, interval)
    return {**models, probe: ProbeModel}


def end_children(*_: Any) -> None:
    """On SIGTERM: end the processes that lava started, then this one."""
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(BROKEN)


def fail_loudly() -> None:
    """Where a process of lava raises, the one that waits for it waits for ever: print the error and end instead."""
    main, original = os.getpid(), multiprocessing.Process.run

    def guarded(self: Any) -> None:
        try:
            original(self)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os.kill(main, signal.SIGTERM)
            raise

    actors.SystemProcess.run = guarded


def watch_stdin() -> None:
    """End as soon as standard input closes."""

    def wait() -> None:
        while os.read(0, 1 << 12):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("net", "request", "answer"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--watch-stdin", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, end_children)
    if options.watch_stdin:
        watch_stdin()
    if found := dangers(options.net):
        sys.stderr.write("; ".join(found) + "\n")
        raise SystemExit(REFUSED)
    fail_loudly()
    with np.load(options.request) as request, tempfile.TemporaryDirectory(dir=options.answer.parent) as folder:
        answer = run(options.net, dict(request), Path(folder))
    np.savez(options.answer, **answer, **versions())


def versions() -> dict[str, Any]:
    """What took part, by name."""
    from importlib.metadata import version

    found = {f"version_{name}": np.str_(version(name)) for name in ("lava-nc", "lava-dl", "numpy", "scipy", "h5py")}
    return {**found, "version_python": np.str_(sys.version.split()[0])}


if __name__ == "__main__":
    main()
