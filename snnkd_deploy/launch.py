"""Start the processes that train together, or join those that torchrun started; one failure ends them all.

Lightning Fabric reads the environment, picks each process its device and sets up torch.distributed. Its launchers are
not used: they report neither progress nor errors to the caller. Nor is its DDP wrapper: that hooks one module's
`forward`, while methods ask for taps and membranes and engine rate has two passes, so gradients are averaged by hand.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _get_default_store
from torch.multiprocessing.spawn import start_processes

from snnkd_deploy import cluster
from snnkd_deploy.config import TrainConfig
from snnkd_deploy.errors import ConfigError, RunError, RuntimeMissingError, SnnkdError
from snnkd_deploy.progress import Silent, Watch

T = TypeVar("T")
Work = Callable[[T, Watch], object]

POLL = 0.05  # seconds between two looks at what the processes report
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID")


def started_by_torchrun() -> bool:
    """Whether this process is one of those of a torchrun."""
    return all(name in os.environ for name in TORCHRUN)


def speaks() -> bool:
    """Whether this process prints the result: of those that torchrun started only one does."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


def placed(config: TrainConfig) -> TrainConfig:
    """The settings with the processes that torchrun started, if it did; ConfigError if the devices are not here."""
    if started_by_torchrun():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        config = replace(config, devices=devices, nodes=int(os.environ["WORLD_SIZE"]) // devices)
    elif config.nodes > 1:
        raise ConfigError(
            f"nodes = {config.nodes}: give nodes = 1, or run on each of them: torchrun --nnodes {config.nodes} "
            f"--nproc-per-node {config.devices} --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m snnkd_deploy train ..."
        )
    _check_devices(config)
    return config


def _check_devices(config: TrainConfig) -> None:
    if config.devices * config.nodes == 1 or config.device == "cpu":
        return
    if config.device != "cuda":
        raise ConfigError(f"device {config.device!r} with {config.devices} devices; give cpu or cuda, without a number")
    if (there := torch.cuda.device_count()) < config.devices:
        raise ConfigError(f"devices = {config.devices}: {there} CUDA devices are here")


@contextmanager
def joined(config: TrainConfig) -> Iterator[None]:
    """Take part in the group that torchrun started, if it did; of several that fail the first one tells why."""
    if not started_by_torchrun() or config.devices * config.nodes == 1:
        yield
        return
    with _group(config):
        try:
            yield
        except SnnkdError as error:
            store = _get_default_store()
            if store.add("snnkd/failed", 1) > 1:
                raise SystemExit(error.exit_code) from error
            raise


@contextmanager
def _group(config: TrainConfig) -> Iterator[None]:
    """Set up torch.distributed from the environment variables of torchrun."""
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise RuntimeMissingError("training in several processes needs: pip install lightning-fabric") from error
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind = "cpu" if config.device == "cpu" else "cuda"
    fabric = Fabric(accelerator=kind, devices=config.devices, num_nodes=config.nodes, strategy="ddp")
    fabric.launch()
    try:
        with cluster.taking_part(cluster.Process(fabric.global_rank, fabric.world_size, fabric.device)):
            yield
    finally:
        distributed.destroy_process_group()


def alone(config: TrainConfig) -> bool:
    """Whether this process does all of the work, or its share of it; else `launch` starts those that do."""
    return config.devices == 1 or started_by_torchrun()


def launch(work: Work[T], task: T, config: TrainConfig, watch: Watch) -> None:
    """Run `work(task, watch)` in `config.devices` processes on this machine; `watch` is told by the first of them.

    `work` and `task` are pickled. The error of the first process that fails is raised here, once all are gone.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # takes a free port
    reports = get_context("spawn").SimpleQueue()
    started = start_processes(
        _process, (config, store.port, work, task, reports), config.devices, join=False, start_method="spawn"
    )
    processes: list[BaseProcess] = list(started.processes)
    try:
        while any(process.exitcode is None for process in processes):
            connection.wait([process.sentinel for process in processes if process.exitcode is None], POLL)
            _hear(reports, processes, watch)
            if any(process.exitcode for process in processes):
                raise _lost(processes)
        _hear(reports, processes, watch)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _hear(reports: Any, processes: list[BaseProcess], watch: Watch) -> None:
    """Pass on what the processes reported; an error among it is raised."""
    while not reports.empty():
        name, *arguments = reports.get()
        if name != "failed":
            getattr(watch, name)(*arguments)
            continue
        kind, text = arguments
        if issubclass(kind, SnnkdError):
            raise kind.__new__(kind, text)  # some classes build their message from several arguments
        raise _lost(processes) if any((process.exitcode or 0) < 0 for process in processes) else RuntimeError(text)


def _lost(processes: list[BaseProcess]) -> RunError:
    """For a process that ended without a word: somebody, or the system when memory ran out, killed it."""
    rank, code = next((rank, process.exitcode) for rank, process in enumerate(processes) if process.exitcode)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return RunError(f"process {rank} of {len(processes)} {how}; the run can go on from its last epoch with --resume")


class _Reporting(Silent):
    """A watch that reports to the process that launched this one."""

    def __init__(self, reports: Any) -> None:
        self.reports = reports

    def stage(self, name: str, epochs: int, done: int, images: int) -> None:
        """A stage starts."""
        self.reports.put(("stage", name, epochs, done, images))

    def step(self, images: int, loss: float) -> None:
        """A batch is over."""
        self.reports.put(("step", images, loss))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over."""
        self.reports.put(("epoch", row))

    def note(self, text: str) -> None:
        """A line."""
        self.reports.put(("note", text))


def _process(rank: int, config: TrainConfig, port: int, work: Work[T], task: T, reports: Any) -> None:
    """Process `rank`, in the environment that torchrun would have made for it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # sent when the launching process dies; ends even a waiting one
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # standard output belongs to the result
    here = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
    sizes = {"WORLD_SIZE": config.devices, "LOCAL_WORLD_SIZE": config.devices}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    os.environ.update({name: str(value) for name, value in {**here, **sizes, **meeting}.items()})
    os.environ["TORCHELASTIC_RUN_ID"] = "local"
    if "lo" in [name for _, name in socket.if_nameindex()]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # host names of laptops often lead nowhere
    try:
        with _group(config):
            work(task, Silent() if rank else _Reporting(reports))
    except Exception as error:  # noqa: BLE001  (whatever it is, the launching process raises it)
        told = str(error) if isinstance(error, SnnkdError) else f"process {rank}: {traceback.format_exc()}"
        reports.put(("failed", type(error) if isinstance(error, SnnkdError) else RuntimeError, told))
        sys.exit(1)
