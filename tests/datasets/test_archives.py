"""Archives are read in memory and trusted in nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dataset_files import archived, cifar100_members, refused


@pytest.mark.parametrize("name", ["../train", "/train", "a/../../train"])
def test_an_archive_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    refused("cifar100", archived(tmp_path / "cifar-100-python.tar.gz", {name: b"x"}), "outside the archive")


def test_an_archive_with_a_huge_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    refused("cifar100", archived(tmp_path / "cifar-100-python.tar.gz", {"train": b""}, train=1 << 40), "256 MiB")


def test_an_archive_without_a_member_is_refused(tmp_path: Path) -> None:
    members = cifar100_members()
    del members["test"]
    refused("cifar100", archived(tmp_path / "cifar-100-python.tar.gz", members), "no test in it")


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = archived(tmp_path / "cifar-100-python.tar.gz", cifar100_members()) / "cifar-100-python.tar.gz"
    path.write_bytes(path.read_bytes()[:2000])
    refused("cifar100", tmp_path, path.name)
