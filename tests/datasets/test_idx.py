"""IDX files are read as they were written, and every damage is one DataError."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from snnkd_deploy import data
from tests.dataset_files import IMAGES, LABELS, idx, refused, some_images, some_labels


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_come_back_as_written_plain_or_compressed(mnist: Path, name: str) -> None:
    found = data.load(name, mnist)
    assert_array_equal(found.train.images[:, 0], some_images(12))
    assert_array_equal(found.test.labels, some_labels(5))
    assert (found.input_shape, found.scale, len(found.classes)) == ((1, 28, 28), 1 / 255, 10)
    assert found.train.labels.dtype == np.int64


def test_sha256_sees_one_changed_pixel(mnist: Path) -> None:
    before = data.load("mnist", mnist).sha256
    images = some_images(5)
    images[4, 27, 27] ^= 1
    (mnist / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    assert data.load("mnist", mnist).sha256 != before


def test_a_truncated_gz_is_refused(mnist: Path) -> None:
    path = mnist / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    refused("mnist", mnist, path.name)


def test_a_gz_that_is_none_is_refused(mnist: Path) -> None:
    (mnist / f"{IMAGES}.gz").write_bytes(idx(some_images(12)))
    refused("mnist", mnist, IMAGES, "Not a gzipped file")


def test_a_gz_with_a_flipped_bit_is_refused(mnist: Path) -> None:
    path = mnist / f"{IMAGES}.gz"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 4
    path.write_bytes(bytes(body))
    refused("mnist", mnist, path.name)


@pytest.mark.parametrize("body", [b"", b"\0\0", b"\0\0\x08\x01" + b"\0" * 100, b"<html>not here</html>" * 9])
def test_another_magic_number_is_refused(mnist: Path, body: bytes) -> None:
    (mnist / IMAGES).write_bytes(body)
    refused("mnist", mnist, IMAGES, "00000803")


@pytest.mark.parametrize(("cut", "met"), [(-1, "only"), (None, "more")])
def test_a_body_of_another_length_than_promised_is_refused(mnist: Path, cut: int | None, met: str) -> None:
    (mnist / IMAGES).write_bytes((idx(some_images(12)) + (b"" if cut else b"!"))[:cut])
    refused("mnist", mnist, IMAGES, met, "(12, 28, 28)")


@pytest.mark.parametrize("shape", [(12, 28, 27), (2**32 - 1, 28, 28)])
def test_a_header_with_another_or_a_monstrous_shape_is_refused(mnist: Path, shape: tuple[int, ...]) -> None:
    (mnist / IMAGES).write_bytes(struct.pack(">4I", 0x0803, *shape) + b"\0" * 100)
    refused("mnist", mnist, IMAGES, str(shape[0]), "accepted")


def test_images_and_labels_must_be_equally_many(mnist: Path) -> None:
    (mnist / LABELS).write_bytes(idx(some_labels(11)))
    refused("mnist", mnist, "12 images but 11 labels")


def test_an_empty_set_is_refused(mnist: Path) -> None:
    (mnist / LABELS).write_bytes(idx(some_labels(0)))
    (mnist / IMAGES).write_bytes(idx(some_images(0)))
    refused("mnist", mnist, "0 images but 0 labels")


def test_labels_out_of_range_are_refused(mnist: Path) -> None:
    (mnist / LABELS).write_bytes(idx(some_labels(12) + np.uint8(1)))
    refused("mnist", mnist, "labels from 1 to 10", "0 to 9")
