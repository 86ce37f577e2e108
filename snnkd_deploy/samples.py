"""Samples that a user brings along: arrays for calibration and proof, labels where there are any."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from snnkd_deploy.data import DataSet
from snnkd_deploy.errors import InputError
from snnkd_deploy.ir import Array, Input, Shape
from snnkd_deploy.numerics import is_integer

MOST = 1000
"""Samples that are kept for proofs and accuracy."""
LEVELS = 255
TOLERANCE = 1e-6
"""Of the largest value: a float32 picture of 8 bits is that close to its 8 bits."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Integers as `simulate` takes them, what one unit is worth to the network, labels `(samples,)` or None.

    `values`: `(samples, *shape)`, or `(time, samples, *shape)` for frames.
    """

    values: Array
    labels: Array | None
    scale: float
    static: bool
    name: str = "samples"
    note: str = ""
    """What happened to the numbers on the way to integers."""
    high: int | None = None
    """The largest integer that can be met; None: what 8 bits hold."""
    classes: int | None = None
    """How many there are; None: nobody says."""

    def __len__(self) -> int:
        return int(self.values.shape[self.axis])

    @property
    def axis(self) -> int:
        """The axis along which the samples lie."""
        return 0 if self.static else 1

    @property
    def shape(self) -> Shape:
        """Of one sample of one step."""
        return tuple(self.values.shape[self.axis + 1 :])

    @property
    def test(self) -> Samples:
        """Those for proofs and accuracy: all of them, as `DataSet.test` holds them."""
        return self

    def integers(self, rows: slice | Array) -> Array:
        """These samples, int64."""
        picked = self.values[rows] if self.static else self.values[:, rows]
        return picked.astype(np.int64)

    encoding: None = None
    """Samples of the user's own come as the network shall see them."""

    @property
    def frames(self) -> bool:
        """Whether a sample is one picture for each step."""
        return not self.static

    def pictures(self, rows: slice | Array) -> Array:
        """What a network without time sees."""
        return self.integers(rows)

    def spread(self, count: int) -> Array:
        """`count` of them, evenly spread, for calibration."""
        places = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        return self.integers(places)

    @property
    def source(self) -> Input:
        """The graph's Input that takes these samples."""
        low, high = (0, LEVELS) if self.values.min() >= 0 else (-127, 127)
        if self.values.max() <= 1 and self.values.min() >= 0:
            high = 1
        return Input(
            name="input",
            shape=self.shape,
            scale=self.scale,
            low=min(low, int(self.values.min())),
            high=max(high, int(self.values.max())) if self.high is None else self.high,
            static=self.static,
        )

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over shapes, integers and labels, in hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.values, np.zeros(0) if self.labels is None else self.labels):
            digest.update(repr((array.shape, self.scale)).encode())
            digest.update(np.ascontiguousarray(array.astype("<i8")).data)
        return digest.hexdigest()


def samples_of(x: Any, y: Any = None, shape: Shape | None = None, name: str = "samples") -> Samples:
    """Samples from arrays: x `(samples, *shape)`, or `(samples, time, *shape)` for frames; y, labels, is optional.

    Integers of 8 bits are pixels, of which the network sees 1/255 (what ToTensor gives), and 0/1 are spikes. Real
    numbers are what the network sees; they are put on 255 steps. InputError lists what is wrong.
    """
    array = np.asarray(x.detach().cpu().numpy() if hasattr(x, "detach") else x)
    labels = None if y is None else np.asarray(y.detach().cpu().numpy() if hasattr(y, "detach") else y)
    if problems := _problems(array, labels, shape, name):
        raise InputError("\n".join([f"{name} cannot be used:", *(f"  - {one}" for one in problems)]))
    static = shape is None or array.ndim == len(shape) + 1
    kept = array[:MOST]
    values, scale, note = _quantised(kept if static else kept.swapaxes(0, 1))
    if len(array) > MOST:
        note = f"{note}; the first {MOST} of {len(array)} are used"
    return Samples(values, None if labels is None else labels[:MOST].astype(np.int64), scale, static, name, note)


def load_samples(path: Path | str, shape: Shape | None = None) -> Samples:
    """Samples from a .npz with arrays `x` and, optionally, `y`, or from a .npy. InputError says what is wrong."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no file of samples {file}")
    try:
        found = np.load(file, allow_pickle=False)
        arrays = {"x": found} if isinstance(found, np.ndarray) else {key: found[key] for key in found.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} is not a .npz or .npy file of plain arrays: {error}") from error
    if "x" not in arrays:
        raise InputError(f"{file} has no array 'x'; it has {', '.join(sorted(arrays))} (x: samples, y: labels)")
    return samples_of(arrays["x"], arrays.get("y"), shape, str(file))


def of_data_set(data: DataSet) -> tuple[Samples, Array]:
    """The test set of a known data set, and training samples as `simulate` takes them for calibration."""
    static = not data.frames
    rows = np.linspace(0, len(data.train) - 1, min(64, len(data.train))).round().astype(int)
    test = data.test.integers(slice(MOST))
    samples = Samples(test, data.test.labels[:MOST], data.scale, static, data.name, "", data.high, len(data.classes))
    return samples, data.train.integers(rows)


def save(path: Path, samples: Samples) -> None:
    """Write samples so that `open_saved` gives them back."""
    arrays: dict[str, Any] = {"values": samples.values, "scale": samples.scale, "static": samples.static}
    if samples.labels is not None:
        arrays["labels"] = samples.labels
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def open_saved(path: Path, name: str) -> Samples:
    """The samples that `save` wrote. InputError if the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as found:
            labels = found["labels"] if "labels" in found.files else None
            return Samples(found["values"], labels, float(found["scale"]), bool(found["static"]), name)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} holds no samples: {error}") from error


def _problems(array: Array, labels: Array | None, shape: Shape | None, name: str) -> list[str]:
    if array.dtype.kind not in "biuf":
        return [f"x has type {array.dtype}; numbers are needed"]
    if array.ndim < 2 or not len(array):
        return [f"x has shape {array.shape}; accepted is (samples, *shape), at least one sample"]
    problems = []
    if shape is not None and array.shape[1:] != shape and array.shape[2:] != shape:
        wanted = ", ".join(map(str, shape))
        problems.append(f"x has shape {array.shape}; accepted is (samples, {wanted}) or (samples, time, {wanted})")
    if not np.isfinite(array).all():
        problems.append("x holds values that are not finite")
    elif array.min() == array.max():
        problems.append(f"every value of x is {array.flat[0]:g}: nothing can be calibrated or proven on that")
    if labels is not None and (labels.shape != (len(array),) or not is_integer(labels) or labels.min() < 0):
        problems.append(
            f"y has type {labels.dtype} and shape {labels.shape}; accepted are {len(array)} integers from 0"
        )
    return problems


def _quantised(x: Array) -> tuple[Array, float, str]:
    """Integers, the worth of one, and what to say about it."""
    if x.min() >= 0 and x.max() <= 1 and set(np.unique(x)) <= {0, 1}:
        return x.astype(np.uint8), 1.0, "x is spikes, 0 or 1"
    if x.dtype == np.uint8:
        return x, 1 / LEVELS, "x is pixels of 8 bits; the network sees x / 255"
    if x.dtype.kind in "bui":
        return x.astype(np.int64), 1.0, "x is integers; the network sees them as they are"
    real = x.astype(np.float64)
    largest = float(np.abs(real).max())
    scale = largest / 127 if real.min() < 0 else 1 / LEVELS if 0.5 < largest <= 1 else largest / LEVELS
    values = np.rint(real / scale)
    change = float(np.abs(values * scale - real).max())
    how = (
        "exactly"
        if change <= TOLERANCE * largest
        else f"the largest change is {change:.3g}, half a step {scale / 2:.3g}"
    )
    return values.astype(np.int64), scale, f"x is put on steps of {scale:.6g}: {how}"
