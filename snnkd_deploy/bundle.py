"""What an export leaves: a folder with the file, its manifest and the integer network itself.

network.onnx | .net | ...      the file for the target, and what its exporter puts beside it
graphs.safetensors             integer (before the target's rewriting), legal (after it), teacher (float, folded)
manifest.json                  what it is, what a loader must know, and what was proven
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from snnkd_deploy.errors import BundleError
from snnkd_deploy.files import read_json, sha256
from snnkd_deploy.graph_file import load_graphs
from snnkd_deploy.ir import Graph

FORMAT, VERSION = "snnkd-deploy/bundle", 1
MANIFEST, GRAPHS = "manifest.json", "graphs.safetensors"
_KEYS: dict[str, type] = {
    "target": str,
    "exporter": str,
    "file": str,
    "files": dict,
    "digest": str,
    "loader": dict,
    "data": dict,
    "proofs": list,
    "ladder": dict,
    "run": dict,
}


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle on disk whose files have the hashes that its manifest states."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def file(self) -> Path:
        """The file for the target."""
        return self.path / str(self.manifest["file"])

    @property
    def target(self) -> str:
        """Name of the target it was made for."""
        return str(self.manifest["target"])

    @property
    def digest(self) -> str:
        """Names the integer network; equal digests, equal spikes."""
        return str(self.manifest["digest"])

    @property
    def verified(self) -> bool:
        """Whether every proof that an export needs has run and found no difference."""
        return bool(self.manifest["verified"])

    @cached_property
    def graphs(self) -> dict[str, Graph]:
        """`integer`, `legal`, `teacher`. BundleError if they are not those of the manifest."""
        graphs = load_graphs(self.path / GRAPHS)
        if missing := {"integer", "legal"} - set(graphs):
            raise BundleError(f"{self.path / GRAPHS} lacks the {' and '.join(sorted(missing))} network")
        if graphs["integer"].digest != self.digest:
            raise BundleError(f"{self.path / GRAPHS} holds another network than {MANIFEST} says (digests differ)")
        return graphs

    @property
    def reference(self) -> Graph:
        """What the file must compute: the integer network, or the folded one where the file holds real numbers."""
        name = "folded" if self.manifest["loader"].get("numbers") == "float" else "integer"
        if name not in self.graphs:
            raise BundleError(f"{self.path / GRAPHS} lacks the {name} network")
        return self.graphs[name]


def find_bundle(path: Path | str) -> Bundle:
    """The bundle in a folder, or the one that a file belongs to. BundleError if there is none."""
    path = Path(path)
    if not path.is_file():
        return open_bundle(path)
    if not (path.parent / MANIFEST).is_file():
        raise BundleError(
            f"{path} lies in no bundle: there is no {MANIFEST} beside it to say what it computes; "
            "give a folder that export wrote, or a file in one"
        )
    bundle = open_bundle(path.parent)
    if path.name not in bundle.manifest["files"]:
        raise BundleError(f"{path} is not part of the bundle that it lies in")
    return bundle


def open_bundle(path: Path | str) -> Bundle:
    """The bundle in a folder. BundleError if it is missing, of another version, or a file is missing or changed."""
    path = Path(path)
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: no such folder")
    manifest = read_json(path / MANIFEST, "bundle manifest", BundleError)
    if (manifest.get("format"), manifest.get("format_version")) != (FORMAT, VERSION):
        met = f"{manifest.get('format')!r} version {manifest.get('format_version')!r}"
        raise BundleError(f"{path / MANIFEST}: met {met}, this version reads {FORMAT!r} version {VERSION}")
    if wrong := [key for key, kind in _KEYS.items() if not isinstance(manifest.get(key), kind)]:
        raise BundleError(f"{path / MANIFEST}: missing or of the wrong type: {', '.join(wrong)}")
    for name, expected in manifest["files"].items():
        _compare(path, str(name), expected)
    if not {manifest["file"], GRAPHS} <= set(manifest["files"]):
        raise BundleError(f"{path / MANIFEST}: no hash of {manifest['file']} or {GRAPHS}")
    return Bundle(path, manifest)


def newest(run: Path, target: str | None = None) -> Bundle:
    """The bundle of a run that was written last, of one target if given."""
    folders = [one.parent for one in run.glob(f"exports/{target or '*'}/{MANIFEST}")]
    if not folders:
        what = f"for target {target}" if target else "for any target"
        raise BundleError(
            f"{run} has no export {what}; make one with: snnkd-deploy export --target {target or 'loihi'}"
        )
    return open_bundle(max(folders, key=lambda one: (one / MANIFEST).stat().st_mtime))


def _compare(path: Path, name: str, expected: object) -> None:
    file = path / name
    if Path(name).name != name or not file.is_file():
        raise BundleError(f"{path}: the file {name!r} of its manifest is missing")
    if sha256(file) != expected:
        raise BundleError(f"{file} is not the file that was written (its SHA-256 is not the manifest's)")
