"""What is built and installed: everything below snnkd_deploy, nothing generic beside it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

import snnkd_deploy
import snnkd_deploy.exporters
import snnkd_deploy.targets

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sdist and wheel, built in this environment."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_wheel_holds_every_module_target_price_table_and_schema(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    packaged = {
        "snnkd_deploy/" + str(path.relative_to(ROOT)).removeprefix("snnkd_deploy/")
        for folder in ("snnkd_deploy", "exporters", "targets")
        for suffix in ("*.py", "*.toml", "*.json", "*.cpp", "py.typed")
        for path in (ROOT / folder).rglob(suffix)
    }
    assert packaged <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"snnkd_deploy", f"snnkd_deploy-{snnkd_deploy.__version__}.dist-info"}


def test_the_sdist_can_be_built_from(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for path in ("pyproject.toml", "README.md", "LICENSE", "exporters/onnx.py", "targets/loihi.toml"):
        assert path in names


def test_the_wheel_runs_where_it_is_installed(built: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    wheel = next(built.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    code = (
        "from snnkd_deploy.target import load_target, target_names\n"
        "from snnkd_deploy.registry import load_exporter\n"
        "import snnkd_deploy\n"
        "print(snnkd_deploy.__file__, [load_exporter(load_target(name).exporter).suffix for name in target_names()])"
    )
    found_first = f"import sys; sys.path[:0] = [{str(target)!r}, *{sys.path!r}]\n{code}"
    command = [sys.executable, "-S", "-c", found_first]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith(str(target))
    assert done.stdout.strip().endswith("['.c', '.net', '.net', '.nir', '.npz', '.onnx', '.py']")


def test_the_editable_install_is_this_tree() -> None:
    assert Path(snnkd_deploy.__file__).parent == ROOT / "snnkd_deploy"
    assert Path(str(snnkd_deploy.exporters.__file__)).parent == ROOT / "exporters"
    assert Path(str(snnkd_deploy.targets.__file__)).parent == ROOT / "targets"
    site = Path(sysconfig.get_paths()["purelib"])
    assert not [name for name in ("exporters", "targets", "tests", "benchmarks", "examples") if (site / name).exists()]


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    for requirement in distribution("snnkd-deploy").requires or []:
        name = requirement.split(">")[0].split(";")[0].strip().lower().replace("_", "-")
        assert name in pins, requirement
