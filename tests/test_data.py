"""Data sets are found by name, and their absence says what is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from snnkd_deploy import data
from snnkd_deploy.errors import ConfigError, UnknownNameError
from tests.dataset_files import refused


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10'"):
        data.load("cifar-10")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_no_data_dir_is_an_error_that_says_which_files_are_needed(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data_dir must name a folder with .*(idx3|tar\.gz)"):
        data.load(name)
    refused(name, tmp_path / "nowhere", "does not exist", "needed")
    refused(name, tmp_path, "no", str(tmp_path))


def test_a_data_set_is_one_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "SOURCES", dict(data.SOURCES))

    @data.dataset("dots", files="dots.npy")
    def dots(folder: Path) -> data.DataSet:
        split = data.Split(np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 1]))
        return data.DataSet("dots", split, split, ("none", "some"), 1.0)

    assert data.load("dots", tmp_path).input_shape == (1, 4, 4)
