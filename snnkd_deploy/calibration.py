"""What quantisation may look at and how it shall choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snnkd_deploy.ir import Array


@dataclass(frozen=True, eq=False)
class Calibration:
    """`samples`: integers as `simulate` takes them. `weight_bits`: fewer than the target's own, if given.

    `granularity`: one scale per layer, or one per channel where the target allows it. `method`: "max" maps the largest
    weight to the largest integer, "mse" may clip weights where that makes the layer's input more exact, "percentile"
    maps the magnitude that `percentile` percent of the weights stay below.
    """

    samples: Array
    weight_bits: int | None = None
    granularity: Literal["layer", "channel"] = "layer"
    method: Literal["max", "mse", "percentile"] = "mse"
    percentile: float = 99.9


@dataclass(frozen=True)
class Rounding:
    """How real numbers become integers; see `Calibration`."""

    weight_bits: int | None = None
    granularity: Literal["layer", "channel"] = "layer"
    calibration: Literal["max", "mse", "percentile"] = "mse"
    weight_percentile: float = 99.9

    def calibrated(self, samples: Array) -> Calibration:
        """What quantisation shall do with these samples."""
        return Calibration(samples, self.weight_bits, self.granularity, self.calibration, self.weight_percentile)


@dataclass(frozen=True)
class FinetuneOptions(Rounding):
    """How to train integers: epochs and peak learning rate; threads and device, None being those of the run."""

    epochs: int = 2
    learning_rate: float = 1e-3
    threads: int | None = None
    device: str | None = None
