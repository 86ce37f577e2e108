"""Code and weights of the user's own: what is accepted, and one clear error for everything else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from snnkd_deploy.errors import ConfigError, InputError, UnknownNameError
from snnkd_deploy.user_code import load_network, load_weights, opened, source_file, told

CODE = """
from torch import nn
from beside import size
def net(): return nn.Linear(size, 2)
class Net(nn.Linear):
    def __init__(self): super().__init__(size, 2)
ready = nn.Linear(size, 2)
def sized(classes, bias=False):
    import later
    return nn.Linear(size, classes, bias)
def broken(): raise RuntimeError("no luck\\nat all")
def leaving(): raise SystemExit(3)
def wanting(colour): return nn.Identity()
def number(): return 3
def deep(): return nn.Linear(3, 2)(__import__("torch").zeros(4))
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "beside.py").write_text("size = 3\n")
    (tmp_path / "later.py").write_text("")
    (tmp_path / "mine.py").write_text(CODE)
    for name in ("beside", "later", "mine", "broken_module"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "mine.py"


@pytest.fixture
def here(code: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(code.parent)
    return code.parent


@pytest.mark.parametrize("name", ["net", "Net", "ready"])
def test_a_function_a_class_and_a_module_are_taken(code: Path, name: str) -> None:
    found = load_network(f"{code}:{name}", classes=5)
    assert isinstance(found, nn.Linear)
    assert (found.in_features, found.out_features) == (3, 2)


def test_what_can_be_imported_from_here_is_taken_too(here: Path) -> None:
    before = list(sys.path)
    found = load_network("mine:net")
    assert isinstance(found, nn.Linear)
    assert source_file("mine:net") == here / "mine.py"
    assert source_file("mine.py:net") == Path("mine.py")
    assert sys.path == before


def test_a_function_is_given_the_keywords_that_it_names(code: Path) -> None:
    before = list(sys.path)
    found = load_network(f"{code}:sized", classes=7, shape=(3,))
    assert isinstance(found, nn.Linear)
    assert found.out_features == 7
    assert not [name for name, _ in found.named_parameters() if name == "bias"]
    assert sys.path == before


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        ("mine.py", ConfigError, "'mine.py' names no network; accepted is path.py:function or module:function"),
        ("mine.txt:3", ConfigError, "names no network"),
        ("a-b:net", ConfigError, "names no network"),
        ("{code}:nett", UnknownNameError, "no function in .*mine.py called 'nett'; known: Net, .*; did you mean 'net'"),
        ("{code}:size", UnknownNameError, "no function in .*mine.py called 'size'"),
        ("{code}:broken", InputError, r"broken raised RuntimeError: no luck \(mine.py, line \d+\); of classes it is"),
        ("{code}:leaving", InputError, r"raised SystemExit: 3 \(mine.py, line \d+\)"),
        ("{code}:wanting", InputError, "raised TypeError: .*missing 1 required positional argument: 'colour'"),
        ("{code}:deep", InputError, r"raised RuntimeError: .* \(mine.py, line 15\)"),
        ("{code}:number", InputError, "gave a int; a torch.nn.Module is needed"),
        ("nowhere.py:net", InputError, "no file nowhere.py"),
        ("no_such_module:net", InputError, "module no_such_module cannot be imported: ModuleNotFoundError"),
        ("broken_module:net", InputError, r"broken_module cannot be imported: OSError: gone \(broken_module.py, line"),
    ],
)
def test_what_is_no_network_is_one_error(here: Path, reference: str, kind: type[Exception], message: str) -> None:
    (here / "broken_module.py").write_text("\nraise OSError('gone')\n")
    with pytest.raises(kind, match=message) as caught:
        load_network(reference.format(code=here / "mine.py"), classes=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name\n", r"ModuleNotFoundError: No module named 'nothing_of_.*' \(bad.py, line 1"),
        ("\n\ndef net(:\n", r"SyntaxError: .*\(bad.py, line 3\)$"),
        ("raise SystemExit\n", r"SystemExit: .*\(bad.py, line 1\)"),
    ],
)  # fmt: skip
def test_code_that_does_not_run_says_so_and_leaves_nothing(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    before = list(sys.path)
    with pytest.raises(InputError, match=f"bad.py cannot be run: {message}"):
        load_network(f"{tmp_path / 'bad.py'}:net")
    assert sys.path == before
    assert not [name for name in sys.modules if name.endswith("_bad")]


def test_a_network_that_is_one_already_is_opened_as_it_is(code: Path, tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    assert opened(model) is model
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "weights.pt")
    filled, again = opened(model, tmp_path / "weights.pt"), opened(f"{code}:net", tmp_path / "weights.pt")
    assert filled is model
    assert torch.equal(again.state_dict()["weight"], model.weight)
    with pytest.raises(ConfigError, match="met a int; a torch.nn.Module, path.py:function"):
        opened(3)


def test_an_error_that_was_never_raised_has_no_place() -> None:
    assert told(ValueError("no luck\nat all")) == "ValueError: no luck"


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "kind", ["pt", "safetensors", "wrapped", "twice", "parallel", "compiled", "both", "saved_while_it_ran"]
)
def test_weights_come_from_every_usual_file(tmp_path: Path, kind: str) -> None:
    state = nn.Linear(3, 2).state_dict()
    file = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file(prefixed(state, "module."), file)
    else:
        kinds = {
            "pt": state,
            "wrapped": {"epoch": 3, "state_dict": state},
            "twice": {"model": {"epoch": 3, "state_dict": state}},
            "parallel": prefixed(state, "module."),
            "compiled": prefixed(state, "_orig_mod."),
            "both": prefixed(state, "module._orig_mod."),
            "saved_while_it_ran": {**state, "lif.mem": torch.zeros(7)},
        }
        torch.save(kinds[kind], file)
    model = load_weights(nn.Linear(3, 2), file)
    assert torch.equal(model.state_dict()["weight"], state["weight"])
    assert torch.equal(model.state_dict()["bias"], state["bias"])


def test_a_network_with_a_part_called_module_keeps_its_names(tmp_path: Path) -> None:
    model, other = (nn.ModuleDict({"module": nn.Linear(3, 2)}) for _ in range(2))
    for prefix in ("", "module."):
        torch.save(prefixed(other.state_dict(), prefix), tmp_path / "weights.pt")
        load_weights(model, tmp_path / "weights.pt")
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_every_weight_that_does_not_fit_is_listed_and_none_is_taken(tmp_path: Path) -> None:
    file, model = tmp_path / "weights.pt", nn.Sequential(*(nn.Linear(3, 2) for _ in range(6)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {"0.weight": torch.zeros(2, 4), "1.weight": torch.zeros(2, 3), "module.1.weight": torch.ones(2, 3)}
    torch.save({**state, "extra": torch.zeros(1)}, file)
    with pytest.raises(InputError) as caught:
        load_weights(model, file)
    assert str(caught.value).splitlines() == [
        f"{file} does not hold the weights of this network:",
        "  - 0.weight is (2, 4) in the file, (2, 3) in the network",
        f"  - missing in the file: {', '.join(name for name in before if name not in state)}",
        "  - not in the network: module.1.weight, extra",
    ]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_holds_no_weights_says_so(tmp_path: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"noise")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3, "model": {}}, tmp_path / "empty.pt")
    torch.save(nn.Linear(3, 2), tmp_path / "pickle.pt")
    for name, message in (
        ("noise.pt", "cannot read weights from .*noise.pt: .*; accepted is a state dict"),
        ("noise.safetensors", "cannot read weights"),
        ("pickle.pt", "cannot read weights"),
        ("list.pt", "holds a list; accepted is a state dict"),
        ("empty.pt", "holds epoch, model; accepted is a state dict"),
        ("none.pt", "no file of weights"),
    ):
        with pytest.raises(InputError, match=message):
            load_weights(nn.Linear(3, 2), tmp_path / name)
