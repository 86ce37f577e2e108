"""The digits that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snnkd_deploy.datasets.samples import DataSet, Split


def digits(folder: Path) -> DataSet:
    """scikit-learn's 1,797 handwritten digits, 1x8x8, pixels 0 to 16; a fixed fifth of each class is for test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    shuffle = np.random.RandomState(0)  # frozen by numpy: the same split in every version
    for label in range(10):
        rows = shuffle.permutation(np.flatnonzero(labels == label))
        test[rows[: round(len(rows) / 5)]] = True
    train, held_out = (Split(images[rows], labels[rows]) for rows in (~test, test))
    return DataSet("digits", train, held_out, tuple("0123456789"), 1 / 16)
