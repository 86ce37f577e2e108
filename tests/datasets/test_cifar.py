"""CIFAR is read as published, and no pickle calls anything."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy import data
from tests.dataset_files import archived, batch, cifar100_members, old_pickle, refused, unpacked


def test_cifar100_is_read_from_the_folder_above_it_the_folder_itself_and_the_archive(tmp_path: Path) -> None:
    members = cifar100_members()
    inside = unpacked(tmp_path / "one" / "cifar-100-python", members)
    (tmp_path / "two").mkdir()
    packed = archived(
        tmp_path / "two" / "cifar-100-python.tar.gz", {f"cifar-100-python/{n}": b for n, b in members.items()}
    )
    found = [data.load("cifar100", folder) for folder in (inside, inside.parent, packed)]
    assert len({one.sha256 for one in found}) == 1
    assert_array_equal(found[0].train.images.reshape(7, 3072), batch(7, "", 1)["data"])
    assert_array_equal(found[0].test.labels, [0, 1, 2])
    assert found[0].classes[99] == "class 99"
    assert found[0].input_shape == (3, 32, 32)


def test_cifar10_joins_its_five_batches_in_order(tmp_path: Path) -> None:
    members = {f"data_batch_{n}": old_pickle(batch(n, "labels", 10)) for n in range(1, 6)}
    members["test_batch"] = old_pickle(batch(4, "labels", 10))
    members["batches.meta"] = old_pickle({"label_names": [f"class {n}" for n in range(10)]})
    found = data.load("cifar10", unpacked(tmp_path, members))
    assert (len(found.train), len(found.test), len(found.classes)) == (15, 4, 10)
    assert_array_equal(found.train.labels, [0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4])


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("reached",)


@pytest.mark.parametrize(
    "body",
    [
        pickle.dumps({b"data": Hostile()}, protocol=2),
        pickle.dumps({b"data": np.frombuffer}, protocol=2),
        b"",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L999999999999L\ntS'b'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.",
    ],
)
def test_a_pickle_that_wants_to_call_something_is_refused_and_calls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    refused("cifar100", unpacked(tmp_path, {**cifar100_members(), "train": body}), "train of", "plain arrays")
    assert not (tmp_path / "reached").exists()


@pytest.mark.parametrize(
    ("train", "word"),
    [
        ([1, 2], "a dictionary is needed"),
        ({b"fine_labels": [0]}, "no data"),
        ({b"data": np.zeros((1, 3072), np.uint8)}, "no fine_labels"),
        ({b"data": np.zeros((1, 3072)), b"fine_labels": [0]}, "3072 unsigned bytes"),
        ({b"data": np.zeros((1, 3071), np.uint8), b"fine_labels": [0]}, "3072 unsigned bytes"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": ["a"]}, "list of integers"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [0, 1]}, "1 images but 2 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [100]}, "0 to 99"),
    ],
)
def test_a_member_with_other_content_is_refused(tmp_path: Path, train: Any, word: str) -> None:
    members = {**cifar100_members(), "train": pickle.dumps(train, protocol=2)}
    refused("cifar100", unpacked(tmp_path, members), word)


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    members = {**cifar100_members(), "meta": pickle.dumps({b"fine_label_names": 3}, protocol=2)}
    refused("cifar100", unpacked(tmp_path, members), "meta of", "list of names")


def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    members = cifar100_members()
    del members["meta"]
    refused("cifar100", unpacked(tmp_path, members), "meta", "cannot read")
