"""Whether samples are noise: counts on random numbers say nothing about what a network does on data."""

from __future__ import annotations

import numpy as np

from snnkd_deploy.ir import Array

BOUND = 5.0
"""Standard errors; independent numbers stay within them."""
STANDARDISED = 1e-6
"""Of the variance that means of independent values have: below it they were made alike."""
FEWEST = 1000
"""Values below which nothing can be told."""


def is_noise(inputs: Array, static: bool) -> bool:
    """Whether no value depends on its place, its sample or its neighbour, as in numbers drawn one by one.

    `inputs` as `simulate` takes them, `(samples, *shape)` or frames `(time, samples, *shape)`, which are added up.
    Shuffled pictures are no noise, since some places are brighter than others; nor are standardised features, whose
    means are alike.
    """
    pictures = np.asarray(inputs if static else inputs.sum(axis=0), dtype=np.float64)
    if pictures.size < FEWEST or len(pictures) < 2 or pictures.shape[-1] < 2:
        return False
    if not pictures.var():
        return False
    centred = pictures - pictures.mean()
    return _independent(centred) and _independent(centred**2)


def _independent(values: Array) -> bool:
    """Whether means by place and by sample vary, and neighbours go together, as little as by chance."""
    spread = values.var()
    if not spread:
        return True
    rows = values.reshape(len(values), -1)
    found = [_spread_of_means(rows, axis, spread) for axis in (0, 1)]
    return all(abs(one) < BOUND for one in (*found, _of_neighbours(values, spread)))


def _spread_of_means(rows: Array, axis: int, spread: float) -> float:
    """Standard errors by which means along an axis vary more than those of independent values."""
    means = rows.mean(axis=axis)
    ratio = means.var() * rows.shape[axis] / spread
    return -np.inf if ratio < STANDARDISED else float((ratio - 1) * np.sqrt(len(means) / 2))


def _of_neighbours(pictures: Array, spread: float) -> float:
    """Standard errors by which the correlation of values side by side is off zero."""
    centred = pictures - pictures.mean()
    products = centred[..., 1:] * centred[..., :-1]
    return float(products.mean() / spread * np.sqrt(products.size))
