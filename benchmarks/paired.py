"""Times of several ways to do one thing, side by side: rounds in which all take turns, ratios within each round."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = ("numpy", "torch", "snntorch", "spikingjelly", "neurobench", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Times:
    """Seconds of each variant in each round, variants that took turns in `rounds` rounds."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """How many times faster `name` is than `base`: the median of the ratios within rounds."""
        pairs = zip(self.seconds[base], self.seconds[name], strict=True)
        return statistics.median(one / other for one, other in pairs)


def paired(
    variants: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2, repeats: int = 1, settle: float = 0.0
) -> Times:
    """Call each variant `repeats` times a round, after `warm_up` rounds; who comes first changes from round to round.

    What else the machine does falls on all variants alike. `settle`: seconds of sleep, and then one call that is not
    counted, ahead of each turn: where several thread pools live in one process (torch's, a session's of onnxruntime)
    the threads of the last one spin for a while, which would fall on the next.
    """
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm_up + rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if settle:
                time.sleep(settle)
                variants[name]()
            start = time.perf_counter()
            for _ in range(repeats):
                variants[name]()
            if turn >= warm_up:
                seconds[name].append((time.perf_counter() - start) / repeats)
    return Times(seconds)


def machine() -> dict[str, Any]:
    """What a figure depends on beside the code: processor, cores, versions of what is installed."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"processor": _processor(), "cores": os.cpu_count(), "avx512": "avx512f" in _flags(), "versions": versions}


def _processor() -> str:
    return next((value for key, value in _told() if key == "model name"), platform.machine())


def _flags() -> list[str]:
    return next((value for key, value in _told() if key == "flags"), "").split()


def _told() -> list[tuple[str, str]]:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        return [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in file)]
    return []
