"""Imports point down; torch, click and the file formats stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = (
    "errors",
    "files",
    "toolchain",
    "ir",
    "geometry",
    "numerics",
    "target",
    "calibration",
    "simulate",
    "bounds",
    "native",
    "check",
    "proof",
    "runner",
    "passes",
    "compiler",
    "graph_file",
    "comparison",
    "ladder",
    "mapping",
    "counts",
    "placement",
    "neurobench",
    "prices",
    "price_files",
    "published",
    "energy",
    "page",
    "report",
    "coverage",
    "exporters",
    "registry",
    "config",
    "events",
    "encoding",
    "datasets",
    "data",
    "samples",
    "run",
    "progress",
    "cluster",
    "launch",
    "snn",
    "autoaugment",
    "augment",
    "batches",
    "checkpoint",
    "distill",
    "torch_layers",
    "torch_sums",
    "trace",
    "live",
    "user_code",
    "frontend",
    "foreign",
    "teacher_cache",
    "train",
    "saliency_report",
    "bundle",
    "export",
    "deploy",
    "unexported",
    "finetune",
    "api",
    "cli",
    "__main__",
)
"""A module imports only what stands before it (a package also what is inside itself)."""

TRAINING = {
    *("cluster", "launch", "snn", "autoaugment", "augment", "batches", "checkpoint", "distill"),
    *(
        "train",
        "saliency_report",
        "torch_layers",
        "torch_sums",
        "trace",
        "live",
        "user_code",
        "foreign",
        "teacher_cache",
        "finetune",
    ),
}
ONLY_IN = {
    "torch": {*TRAINING, "frontend", "exporters"},
    "click": {"cli"},
    "rich": {"cli", "progress", "report"},
    "onnx": {"exporters"},
    "onnxruntime": {"exporters"},
    "h5py": {"exporters"},
    "nir": {"exporters", "frontend"},
    "snntorch": {"exporters", "snn"},
    "triton": {"snn"},
    "lava": {"exporters"},
    "matplotlib": {"page", "report", "saliency_report"},
    "PIL": {"datasets"},
    "sklearn": {"datasets"},
    "filelock": {"run"},
    "lightning_fabric": {"launch"},
}
COMPILING = {*ORDER[: ORDER.index("config")]}
EXPORTERS_SEE = {
    "errors",
    "files",
    "toolchain",
    "ir",
    "geometry",
    "numerics",
    "target",
    "simulate",
    "bounds",
    "native",
    "check",
    "proof",
    "exporters",
}
WITHOUT_BEHAVIOUR = {"calibration"}
AT_START_UP = {"cli", "config", "errors", "__init__"}


def module_files() -> list[Path]:
    return [
        path
        for folder in ("snnkd_deploy", "exporters")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "__init__.py" or path.stat().st_size > 200
    ]


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return "exporters" if relative.parts[0] == "exporters" else relative.with_suffix("").parts[1]


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            inner = node.module == "snnkd_deploy"
            found |= {f"snnkd_deploy.{alias.name}" for alias in node.names} if inner else {node.module}
    return found


def parts_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("snnkd_deploy.")} - {"__version__"}


@pytest.mark.parametrize("path", module_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    assert part in ORDER, f"{part} has no place in ORDER"
    above = {name for name in parts_imported(path) if ORDER.index(name) > ORDER.index(part)}
    same = part in parts_imported(path) and path.parent in (ROOT / "snnkd_deploy", ROOT)
    assert not above, f"{path.name} imports {above}, which stand above it"
    assert not same


@pytest.mark.parametrize("path", module_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_stay_where_they_belong(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    misplaced = {name for name, places in ONLY_IN.items() if name in roots and part_of(path) not in places}
    assert not misplaced


def test_the_compiling_wing_never_reaches_the_training_wing() -> None:
    for path in module_files():
        if part_of(path) in COMPILING:
            assert not parts_imported(path) & TRAINING, path.name


def test_exporters_see_only_the_core() -> None:
    for path in (ROOT / "exporters").glob("*.py"):
        assert parts_imported(path) <= EXPORTERS_SEE, path.name


def test_the_command_line_starts_without_heavy_packages() -> None:
    for name in AT_START_UP:
        roots = {one.split(".")[0] for one in imports(ROOT / "snnkd_deploy" / f"{name}.py", top_level_only=True)}
        assert roots <= {*sys.stdlib_module_names, "click", "snnkd_deploy", "tomli"}, name
        inner = parts_imported(ROOT / "snnkd_deploy" / f"{name}.py") if name not in ("cli", "__init__") else set()
        assert inner <= AT_START_UP, name


def test_importing_the_package_stays_light() -> None:
    code = "import sys, snnkd_deploy; sys.exit(bool({'numpy', 'torch', 'snnkd_deploy.deploy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_folder_with_code_is_in_the_package_list() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for folder in {path.parent for path in module_files()}:
        relative = folder.relative_to(ROOT)
        name = ".".join(("snnkd_deploy", *relative.parts) if relative.parts[0] == "exporters" else relative.parts)
        assert f'"{name}"' in text, f"{name} is missing in pyproject.toml"


def test_each_module_of_the_core_has_its_test() -> None:
    names = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [path.stem for path in module_files() if not has_test(path, names)]
    assert not missing


def has_test(path: Path, names: set[str]) -> bool:
    private = path.stem.startswith("_") or path.stem == "__init__"
    return private or path.stem in WITHOUT_BEHAVIOUR or f"test_{path.stem}.py" in names
