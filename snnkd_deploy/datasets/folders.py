"""Pictures in folders: ImageNet, Tiny-ImageNet, and anybody's own with one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from snnkd_deploy.datasets.pictures import Pictures
from snnkd_deploy.datasets.samples import DataSet, Split
from snnkd_deploy.errors import ConfigError, DataError

IMAGENET = "train/<class>/*.JPEG and val/<class>/*.JPEG, with the wnids as classes"
TINY = "wnids.txt, words.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt"
FOLDER = "train/<class>/* and test/<class>/* (or val), .png, .jpg or .jpeg"
SUFFIXES = (".jpg", ".jpeg", ".png")
MEMORY = 1 << 31  # bytes: splits up to here are decoded once, when they are read; larger ones again and again

Labelled = list[tuple[str, int]]  # name of a file below the folder, class


def imagenet(folder: Path, size: int | None) -> DataSet:
    """Colour photographs, 3x224x224: Russakovsky et al., IJCV 2015; the middle 7/8 of the shorter side, as usual."""
    size = size or 224
    return _classed("imagenet", folder, ("val",), size, shorter=size * 8 // 7)


def folder(folder: Path, size: int | None) -> DataSet:
    """Pictures of one's own, 3xSxS, classes in alphabetical order of their folders."""
    if size is None:
        raise ConfigError("data set 'folder' holds pictures of any size: image_size must say to which they are brought")
    return _classed("folder", folder, ("test", "val"), size, shorter=size)


def tiny_imagenet(folder: Path, size: int | None) -> DataSet:
    """200 classes of ImageNet, 3x64x64: Le, Yang, Stanford CS 231N 2015; its validation set is the test set."""
    root = next((one for one in (folder, folder / "tiny-imagenet-200") if (one / "wnids.txt").is_file()), folder)
    wnids = _lines(root / "wnids.txt")
    words = dict(line.split("\t", 1) for line in _lines(root / "words.txt") if "\t" in line)
    label = {wnid: number for number, wnid in enumerate(sorted(wnids))}
    inside = {wnid: f"train/{wnid}/images" for wnid in label}
    train = [(f"{inside[wnid]}/{name}", label[wnid]) for wnid in label for name in _files(root / inside[wnid])]
    first, second = (_split(root, found, size or 64, size or 64) for found in (train, _annotated(root, label)))
    return DataSet("tiny-imagenet", first, second, tuple(words.get(wnid, wnid) for wnid in label), 1 / 255)


def _classed(name: str, root: Path, held_out: Sequence[str], size: int, shorter: int) -> DataSet:
    """A set of root/train/<class>/* and the first of `held_out` that is there."""
    test = next((one for one in held_out if (root / one).is_dir()), held_out[0])
    classes = _folders(root / "train")
    if unknown := sorted({*_folders(root / test)} - {*classes}):
        raise DataError(f"{root / test}: no class {', '.join(unknown[:3])} in {root / 'train'}")
    found = (
        [(f"{part}/{one}/{file}", label) for label, one in enumerate(classes) for file in _files(root / part / one)]
        for part in ("train", test)
    )
    first, second = (_split(root, labelled, size, shorter) for labelled in found)
    return DataSet(name, first, second, tuple(classes), 1 / 255)


def _split(root: Path, labelled: Labelled, size: int, shorter: int) -> Split:
    pictures = Pictures(root, [name for name, _ in labelled], size, shorter)
    small = int(np.prod([float(axis) for axis in pictures.shape])) <= MEMORY
    return Split(pictures[:] if small else pictures, np.array([label for _, label in labelled], dtype=np.int64))


def _annotated(root: Path, label: dict[str, int]) -> Labelled:
    """Tiny-ImageNet's validation set: file, wnid and a box on each line."""
    path = root / "val" / "val_annotations.txt"
    found: Labelled = []
    for number, line in enumerate(_lines(path), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in label:
            raise DataError(f"{path}, line {number}: {line!r}; a file and a class of wnids.txt are needed")
        found.append((f"val/images/{name}", label[wnid]))
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(path) if entry.is_dir())


def _files(path: Path) -> list[str]:
    """Pictures in a folder; one that is not there, as of a class without test pictures, holds none."""
    entries = _entries(path) if path.is_dir() else []
    return sorted(entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES))


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
