"""How the gradient of a student comes about: engines by name, each from images to what a method may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.snn.models import Network, Outputs


@dataclass(frozen=True)
class Engine:
    """`outputs(student, images)` runs a batch in training mode; `gives` names what its Outputs hold beyond rates.

    "steps": logits of each step. A method that needs more than an engine gives is refused before the training.
    """

    outputs: Callable[[Network, Tensor], Outputs]
    gives: frozenset[str]


def bptt(student: Network, images: Tensor) -> Outputs:
    """Backpropagation through time: every step stays in the graph."""
    return student.outputs(images)


ENGINES: dict[str, Engine] = {"bptt": Engine(bptt, frozenset({"steps"}))}


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
    return ENGINES[name]
