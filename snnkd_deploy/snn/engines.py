"""How the gradient of a student comes about: engines by name, each from images to what a method may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.snn import rate
from snnkd_deploy.snn.models import Network, Outputs
from snnkd_deploy.snn.norms import over_processes


def accept(student: Network) -> None:
    """Any student will do."""


@dataclass(frozen=True)
class Engine:
    """`outputs(student, images)` runs a batch in training mode; `gives` names what its Outputs hold beyond rates.

    "steps": logits of each step; "membranes": those of each block, from `membranes` in place of `outputs`.
    A method that needs more than an engine gives is refused before the training; so is a student that `check` refuses.
    """

    outputs: Callable[[Network, Tensor], Outputs]
    gives: frozenset[str]
    membranes: Callable[[Network, Tensor], Outputs] | None = None
    check: Callable[[Network], None] = accept


def bptt(student: Network, images: Tensor) -> Outputs:
    """Backpropagation through time: every step stays in the graph."""
    return over_processes(student).outputs(images)


def bptt_membranes(student: Network, images: Tensor) -> Outputs:
    """The same with the membranes of each block, which take a second, unfused pass through its last neurons."""
    return over_processes(student).outputs(images, membranes=True)


ENGINES: dict[str, Engine] = {
    "bptt": Engine(bptt, frozenset({"steps", "membranes"}), bptt_membranes),
    "rate": Engine(rate.rate, frozenset(), check=rate.check),
}


def load_engine(name: str, method: str, needs: frozenset[str]) -> Engine:
    """The engine called `name`. ConfigError if it does not give what the method needs."""
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    if missing := needs - ENGINES[name].gives:
        able = sorted(other for other, engine in ENGINES.items() if needs <= engine.gives)
        raise ConfigError(
            f"method {method!r} needs {', '.join(sorted(missing))}, which engine {name!r} does not give; "
            f"use engine {' or '.join(able)}"
        )
    engine = ENGINES[name]
    return replace(engine, outputs=engine.membranes) if "membranes" in needs and engine.membranes else engine
