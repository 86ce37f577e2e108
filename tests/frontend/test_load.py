"""Code and weights of the user's own: what is accepted, and one clear error for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from snnkd_deploy.errors import ConfigError, InputError
from snnkd_deploy.frontend.load import evaluating, load_module, load_weights

CODE = """
from torch import nn
from beside import size
def net(): return nn.Linear(size, 2)
class Net(nn.Linear):
    def __init__(self): super().__init__(size, 2)
ready = nn.Linear(size, 2)
def broken(): raise RuntimeError("no luck")
def number(): return 3
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("size = 3\n")
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


@pytest.mark.parametrize("name", ["net", "Net", "ready"])
def test_a_function_a_class_and_a_module_are_taken(code: Path, name: str) -> None:
    found = load_module(f"{code}:{name}")
    assert isinstance(found, nn.Linear)
    assert found.in_features == 3


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("mine.py", ConfigError, "accepted is path.py:function"),
        ("{code}:missing", InputError, "has no 'missing'; it has Net, broken, net"),
        ("{code}:broken", InputError, "raised RuntimeError: no luck; it is called without arguments"),
        ("{code}:number", InputError, "gave a int; a torch.nn.Module is needed"),
        ("nowhere.py:net", InputError, "no file nowhere.py"),
    ],
)
def test_what_is_no_network_is_one_error(code: Path, spec: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load_module(spec.format(code=code))


def test_code_that_does_not_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(InputError, match="bad.py cannot be run: ModuleNotFoundError"):
        load_module(f"{tmp_path / 'bad.py'}:net")


@pytest.mark.parametrize("kind", ["pt", "safetensors", "wrapped", "parallel"])
def test_weights_come_from_every_usual_file(tmp_path: Path, kind: str) -> None:
    state = nn.Linear(3, 2).state_dict()
    file = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file(state, file)
    else:
        parallel = {f"module.{key}": value for key, value in state.items()}
        torch.save({"pt": state, "wrapped": {"epoch": 3, "state_dict": state}, "parallel": parallel}[kind], file)
    model = load_weights(nn.Linear(3, 2), file)
    assert torch.equal(model.state_dict()["weight"], state["weight"])


def test_every_weight_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}, file)
    with pytest.raises(InputError) as caught:
        load_weights(nn.Linear(3, 2), file)
    for reason in ("bias: not in the file", "extra: not in the network", r"weight: (2, 4) in the file, (2, 3) in"):
        assert reason in str(caught.value)


def test_what_holds_no_weights_says_so(tmp_path: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"noise")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, message in (("noise.pt", "is not a file of weights"), ("list.pt", "holds no state dict")):
        with pytest.raises(InputError, match=message):
            load_weights(nn.Linear(3, 2), tmp_path / name)
    with pytest.raises(InputError, match="no file of weights"):
        load_weights(nn.Linear(3, 2), tmp_path / "none.pt")


def test_a_network_in_training_is_put_into_evaluation_and_says_so() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    assert evaluating(model) == ["was in training mode, is put into evaluation (Dropout)"]
    assert not model.training
    assert evaluating(model) == []
