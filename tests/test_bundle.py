"""A bundle is opened only if it is whole, unchanged and of this version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from snnkd_deploy.bundle import GRAPHS, Bundle, find_bundle, newest, open_bundle
from snnkd_deploy.errors import BundleError
from snnkd_deploy.graph_file import load_graphs, save_graphs
from snnkd_deploy.run import Run


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


def edit(path: Path, **changes: Any) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def test_a_bundle_says_what_it_is(copy: Path) -> None:
    bundle = open_bundle(copy)
    assert bundle.target == "onnx"
    assert bundle.verified
    assert bundle.graphs["integer"].digest == bundle.digest
    assert set(bundle.manifest["ladder"]) == {"teacher", "student", "folded", "integer", "file"}
    assert bundle.manifest["proofs"][0]["differing"] == 0
    assert bundle.manifest["input"]["axes"] == "channel, height, width"


def test_changed_missing_and_foreign_files_are_refused(copy: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        open_bundle(copy / "nothing")
    edit(copy, format_version=99)
    with pytest.raises(BundleError, match="met 'snnkd-deploy/bundle' version 99, this version reads"):
        open_bundle(copy)
    edit(copy, format_version=1, loader=[])
    with pytest.raises(BundleError, match="missing or of the wrong type: loader"):
        open_bundle(copy)
    edit(copy, loader={})
    (copy / "network.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"network\.onnx is not the file that was written"):
        open_bundle(copy)
    (copy / "network.onnx").unlink()
    with pytest.raises(BundleError, match="the file 'network.onnx' of its manifest is missing"):
        open_bundle(copy)


def test_a_manifest_cannot_point_outside_its_folder(copy: Path) -> None:
    edit(copy, files={"../manifest.json": "0"})
    with pytest.raises(BundleError, match=r"the file '\.\./manifest\.json' of its manifest is missing"):
        open_bundle(copy)
    edit(copy, files={})
    with pytest.raises(BundleError, match="no hash of network.onnx"):
        open_bundle(copy)


def test_another_network_under_the_same_name_is_noticed(copy: Path) -> None:
    from snnkd_deploy.files import sha256

    graphs = load_graphs(copy / GRAPHS)
    save_graphs(copy / GRAPHS, {"integer": graphs["legal"], "legal": graphs["legal"]})
    files = json.loads((copy / "manifest.json").read_text())["files"]
    edit(copy, files={**files, GRAPHS: sha256(copy / GRAPHS)})
    with pytest.raises(BundleError, match="another network than"):
        _ = open_bundle(copy).graphs
    save_graphs(copy / GRAPHS, {"legal": graphs["legal"]})
    edit(copy, files={**files, GRAPHS: sha256(copy / GRAPHS)})
    with pytest.raises(BundleError, match="lacks the integer network"):
        _ = open_bundle(copy).graphs


def test_the_newest_export_is_found_or_its_absence_explained(
    tiny_bundle: Bundle, tiny_run: Run, tmp_path: Path
) -> None:
    assert newest(tiny_run.path, "onnx").path == tiny_bundle.path
    with pytest.raises(BundleError, match="make one with: snnkd-deploy export --target loihi"):
        newest(tmp_path)


def test_a_file_leads_to_the_bundle_that_it_lies_in(copy: Path, tmp_path: Path) -> None:
    assert find_bundle(copy / "network.onnx").path == find_bundle(copy).path == copy
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"notes\.txt is not part of the bundle"):
        find_bundle(copy / "notes.txt")
    alone = Path(shutil.copy(copy / "network.onnx", tmp_path / "alone.onnx"))
    with pytest.raises(BundleError, match=r"alone\.onnx lies in no bundle: there is no manifest\.json beside it"):
        find_bundle(alone)
    edit(copy, loader={"numbers": "float"})
    with pytest.raises(BundleError, match="lacks the folded network"):
        _ = find_bundle(copy).reference
