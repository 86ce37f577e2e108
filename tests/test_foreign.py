"""A torch network of the user's own teaches any student, or is refused with the reason before anything is made."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from snnkd_deploy import api, foreign
from snnkd_deploy.config import TrainConfig, load_config
from snnkd_deploy.data import load
from snnkd_deploy.distill import methods
from snnkd_deploy.errors import ConfigError, InputError, RunError, SnnkdError, UnknownNameError
from snnkd_deploy.export import read_run
from snnkd_deploy.progress import Silent
from snnkd_deploy.run import Run, open_run
from snnkd_deploy.simulate import simulate
from snnkd_deploy.snn import models
from snnkd_deploy.train import train
from tests.recordings import write_recordings

EXAMPLE = Path(__file__).parents[1] / "examples" / "my_teacher.py"
HEAD = "import torch\nfrom torch import nn\n"
CNN = """
def build():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(48, 10))
"""


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def code(body: str, name: str = "mine.py") -> str:
    Path(name).write_text(HEAD + body)
    return f"{name}:build"


def config(**options: Any) -> TrainConfig:
    quick = {"width": 4, "timesteps": 2, "epochs": 1, "threads": 1, "teacher": f"{EXAMPLE}:build"}
    return load_config(**{**quick, **options})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's own weights after a few epochs on the digits."""
    path = tmp_path_factory.mktemp("weights") / "mine.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE.parent))
        patch.setattr(sys, "argv", ["my_teacher.py", "--epochs", "6", "--out", str(path)])
        with torch.random.fork_rng():
            torch.manual_seed(0)
            __import__("my_teacher").main()
    return path


@pytest.fixture(scope="module")
def taught(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    options = config(method="feature", teacher_weights=str(weights), epochs=8, teacher_accuracy=0.9)
    return train(options, out=tmp_path_factory.mktemp("runs") / "taught")


def test_a_plain_torch_network_teaches(taught: Run, weights: Path) -> None:
    assert taught.accuracies["teacher"] > 0.95
    assert taught.accuracies["student"] > 0.8
    entry = taught.document["teacher"]["foreign"]
    assert entry["taps"] == ["first.pool", "second.pool"]
    assert (entry["uncut"], entry["uncounted"], entry["stated_accuracy"]) == ("", [], 0.9)
    kept, given = safetensors.torch.load_file(taught.teacher_file), torch.load(weights)
    assert kept.keys() == given.keys()
    assert all(torch.equal(kept[name], given[name]) for name in given)


def test_the_graph_in_the_run_answers_as_the_network_does(taught: Run) -> None:
    network = foreign.teacher(taught.config, (1, 8, 8), 10, taught.teacher_file)
    test = load("digits").test
    graph = read_run(taught).teacher
    assert graph is not None
    expected = network(torch.tensor(test.images) / 16).argmax(1).numpy()
    assert (simulate(graph, test.images.astype(int)).logits.argmax(1) == expected).all()
    assert (expected == test.labels).mean() == pytest.approx(taught.accuracies["teacher"], abs=1e-12)


def test_export_and_energy_need_no_code(taught: Run, here: Path) -> None:
    shutil.copytree(taught.path, here / "elsewhere")
    document = json.loads((here / "elsewhere" / "run.json").read_text())
    document["config"] |= {"teacher": "/nowhere/mine.py:build", "teacher_weights": "/nowhere/mine.pt"}
    (here / "elsewhere" / "run.json").write_text(json.dumps(document))
    bundle = api.export(open_run(here / "elsewhere"), "onnx")
    assert bundle.verified
    report = api.energy(here / "report.json", bundle.path)
    counted = {one["role"]: one["macs_dense"] for one in report["ann"]}
    assert counted["teacher"] == (9 + 16 * 9) * 16 * 64 + (16 * 9 + 32 * 9) * 32 * 16 + 128 * 10  # by hand
    assert report["ann"][1]["role"] == "same_shape"
    (here / "elsewhere" / "teacher_graph.safetensors").unlink()
    with pytest.raises(RunError, match="teacher_graph.safetensors is missing or not the file that was written"):
        api.export(open_run(here / "elsewhere"), "onnx")


def test_a_layer_without_a_node_is_named_in_the_report_instead(here: Path) -> None:
    notes = Notes()
    made = train(config(teacher=code(CNN.replace("ReLU", "GELU"))), out="run", watch=notes)
    reasons = made.document["teacher"]["foreign"]["uncounted"]
    assert [one.partition(" has no node")[0] for one in reasons] == ["2: GELU", "6: GELU"]
    assert any("will not be counted by `energy`: 2: GELU" in line for line in notes.lines)
    report = api.energy(here / "report.json", api.export(made, "onnx").path)
    assert [one["role"] for one in report["ann"]] == ["same_shape"]
    assert any(one.startswith("teacher not counted: 2: GELU has no node") for one in report["warnings"])


def test_a_teacher_that_is_written_with_functions_is_counted(here: Path) -> None:
    body = """
from torch.nn import functional as F
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(32, 20), nn.Linear(20, 10)
    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), (2, 2))
        x = F.dropout(x, 0.5, self.training).view(x.size(0), -1)
        return self.fc2(self.fc1(x).clamp(min=0) if RARE else F.relu(self.fc1(x)))
def build(): return Net()
"""
    options = {"teacher_normalize": "0.3/0.4", "method": "blockwise"}
    made = train(config(teacher=code("RARE = False" + body), **options), out="run")
    assert made.document["teacher"]["foreign"]["uncounted"] == []
    report = api.energy(here / "report.json", api.export(made, "onnx").path)
    counted = {one["role"]: one["macs_dense"] for one in report["ann"]}
    assert counted["teacher"] == (1 + 9 * 4) * 64 + 9 * 4 * 8 * 16 + 32 * 20 + 20 * 10  # by hand
    other = train(config(teacher=code("RARE = True" + body), **options), out="other")
    reasons = other.document["teacher"]["foreign"]["uncounted"]
    assert [one.partition(" has no node")[0] for one in reasons] == ["clamp in network (mine.py:14): clamp"]


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("spiking(self.leaky, x)", r"it spikes \(leaky\); a teacher is counted as an ANN"),
        (
            "x @ SINGLE",
            r"teacher cannot take samples of shape \(4, 1, 8, 8\): RuntimeError: .*dtype.*\(mine.py, line 1",
        ),
        ("torch.tanh(x)", r"tanh in network \(mine.py:1\d\): tanh has no node"),
    ],
)
def test_a_teacher_without_a_graph_teaches_and_says_why_it_has_none(returned: str, reason: str) -> None:
    body = """
import snntorch
SINGLE = torch.eye(10)
def spiking(leaky, x):
    membrane, spikes = leaky.reset_mem(), []
    for _ in range(3):
        spike, membrane = leaky(x, membrane)
        spikes.append(spike)
    return torch.stack(spikes).mean(0)
class Net(nn.Linear):
    def __init__(self):
        super().__init__(64, 10)
        self.leaky = snntorch.Leaky(0.5, reset_mechanism="zero")
    def forward(self, x):
        x = super().forward(x.flatten(1))
        return RETURNED
def build(): return Net()
"""
    made = train(config(teacher=code(body.replace("RETURNED", returned)), method="logits"), out="run")
    reasons = made.document["teacher"]["foreign"]["uncounted"]
    assert len(reasons) == 1
    assert re.match(reason, reasons[0])


def test_a_graph_that_computes_something_else_is_not_counted() -> None:
    body = "class Twice(nn.Identity):\n    def forward(self, x):\n        return 2 * x\n"
    made = train(config(teacher=code(body + CNN.replace("nn.Flatten()", "Twice(), nn.Flatten()"))), out="run")
    reasons = made.document["teacher"]["foreign"]["uncounted"]
    assert len(reasons) == 1
    assert re.fullmatch(r"its result differs by [0-9.]+ from that of the network", reasons[0])


@pytest.mark.parametrize("name", methods())
def test_every_method_learns_from_it_or_refuses_before_the_training(name: str, here: Path) -> None:
    example = config(method=name)
    if name == "idsnn":
        message = (
            r"method 'idsnn': weights cannot be shared: block 0 of the student has Conv2d\[3, 3\], BatchNorm2d, of"
        )
        with pytest.raises(ConfigError, match=message):
            train(example, out="run")
        assert not list(here.iterdir())
        example = config(method=name, teacher=code(CNN))
    assert train(example, out="run").finished


@pytest.mark.parametrize("name", methods())
def test_a_teacher_that_cannot_be_cut_serves_all_that_need_no_blocks(name: str, here: Path) -> None:
    body = (
        CNN
        + "\nclass Both(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.net = old()\n"
    )
    body = (
        body.replace("def build", "def old")
        + "    def forward(self, x):\n        return self.net(x if x.sum() > 0 else -x)\n"
    )
    example = config(method=name, teacher=code(body + "def build():\n    return Both()\n"))
    if name in ("blockwise", "idsnn"):
        with pytest.raises(ConfigError, match=f"method '{name}': the teacher cannot be cut into blocks: its forward"):
            train(example, out="run")
        assert not (here / "run").exists()
        return
    assert train(example, out="run").document["teacher"]["foreign"]["taps"] == ["net.3", "net.7"]


@pytest.mark.parametrize(
    ("body", "options", "error", "message"),
    [
        (None, {"teacher": "nowhere.py:build"}, InputError, r"no file .*nowhere\.py"),
        (None, {"teacher": "no_such_module:build"}, InputError, "module no_such_module cannot be imported: Modul"),
        ("def bild(): pass", {}, UnknownNameError, "no function in .* called 'build'; known: bild; did you mean"),
        ("raise ValueError('no luck')", {}, InputError, r"cannot be run: ValueError: no luck \(mine.py, line 3\)"),
        ("def build(): raise OSError('gone')", {}, InputError, r"build raised OSError: gone \(mine.py, line 3\)"),
        ("def build(): return 3", {}, InputError, "gave a int; a torch.nn.Module is needed"),
        ("def build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))", {}, ConfigError,
         r"3 images of 1x8x8 give \(3, 9\); logits \(3, 10\) are needed, one for each class"),
        ("def build(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))", {}, ConfigError,
         "cannot take images of 1x8x8: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("def build(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))", {}, ConfigError,
         "cannot take images of 1x8x8: RuntimeError: .* 3 channels"),
        ("class Two(nn.Flatten):\n    def forward(self, x): return x, x\ndef build(): return Two()", {}, ConfigError,
         r"give a tuple; logits \(3, 10\) are needed"),
        ("class Nan(nn.Linear):\n    def forward(self, x): return super().forward(x.flatten(1)) / 0\n"
         "def build(): return Nan(64, 10)", {}, ConfigError, "its logits are not finite"),
        (CNN, {"teacher_taps": "3,71"}, UnknownNameError, "no module to tap in the teacher '71'; known: 0, 1"),
        ("def build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))", {"method": "feature"}, ConfigError,
         "method 'feature': the teacher has no feature to compare with; name some with teacher_taps"),
        (CNN, {"method": "blockwise", "teacher_taps": "2,6"}, ConfigError,
         r"method 'blockwise': block 0 gives \(4, 4, 4\) in the student and \(6, 8, 8\) in the teacher"),
        (CNN, {"method": "blockwise", "teacher_taps": "3"}, ConfigError, "equally many blocks, at least 2; met 2"),
        (CNN, {"teacher_weights": "gone.pt"}, InputError, "no file of weights .*gone.pt"),
        (CNN, {"teacher_normalize": "0.5"}, ConfigError, "teacher_normalize = '0.5': MEAN/STD is needed"),
        (CNN, {"teacher_normalize": "1,2/3"}, ConfigError, "teacher_normalize = '1,2/3': MEAN/STD is needed"),
        (CNN, {"teacher_normalize": "0/0"}, ConfigError, "STD above 0"),
        (CNN, {"teacher_accuracy": 93.0}, ConfigError, "teacher_accuracy = 93.0: a number above 0 to 1"),
        (CNN, {"teacher_width": 8}, ConfigError, "teacher_width: teacher .* is code, which says its own shape"),
    ],
)  # fmt: skip
def test_what_cannot_teach_is_refused_before_anything_is_made(
    body: str | None, options: dict[str, Any], error: type[SnnkdError], message: str, here: Path
) -> None:
    chosen = {} if body is None else {"teacher": code(body)}
    with pytest.raises(error, match=message):
        train(config(**{**chosen, **options}), out="run")
    assert {path.name for path in here.iterdir()} <= {"mine.py", "__pycache__"}


def test_weights_that_do_not_fit_are_listed() -> None:
    torch.save({"0.weight": torch.zeros(6, 1, 5, 5), "10.bias": torch.zeros(10)}, "wrong.pt")
    with pytest.raises(InputError) as caught:
        train(config(teacher=code(CNN), teacher_weights="wrong.pt"))
    assert str(caught.value).splitlines()[1] == "  - 0.weight is (6, 1, 5, 5) in the file, (6, 1, 3, 3) in the network"


def test_settings_of_code_need_code() -> None:
    with pytest.raises(ConfigError, match="teacher_taps, teacher_accuracy: for a teacher of your own; teacher = PATH"):
        train(load_config(teacher_taps="3", teacher_accuracy=0.5))


def test_a_teacher_below_what_is_stated_or_near_guessing_is_told_loudly(weights: Path) -> None:
    notes = Notes()
    made = train(config(teacher_weights=str(weights), teacher_accuracy=0.999), out="a", watch=notes)
    assert made.document["teacher"]["foreign"]["stated_accuracy"] == 0.999
    assert sum("not the 99.90% that are stated" in line for line in notes.lines) == 1
    assert not any("guessing" in line for line in notes.lines)
    train(config(), out="b", watch=notes)  # no weights
    assert sum("hardly better than guessing (10." in line for line in notes.lines) == 1


def test_rounding_of_a_stated_accuracy_is_no_reason_to_warn() -> None:
    labels = torch.arange(10)
    assert not foreign.doubts(0.9252, 0.93, labels)
    assert not foreign.doubts(0.96, 1, labels)
    assert len(foreign.doubts(0.9249, 0.93, labels)) == 1
    assert len(foreign.doubts(0.9252, 0.9260, labels)) == 1
    assert len(foreign.doubts(0.189, None, labels)) == 1
    assert not foreign.doubts(0.191, None, labels)


def test_logits_that_are_not_finite_on_a_test_image_are_refused(here: Path) -> None:
    body = "class Rare(nn.Linear):\n    def forward(self, x):\n        x = x.flatten(1)\n"
    body += "        return super().forward(x) + torch.log((x.sum(1) > 25)[:, None].float())\n"
    with pytest.raises(ConfigError, match="the teacher's logits are not finite on [0-9]+ of 359 test"):
        train(config(teacher=code(body + "def build(): return Rare(64, 10)"), method="none"))


def test_images_are_normalised_in_front_of_it(here: Path) -> None:
    body = "class Look(nn.Linear):\n    def forward(self, x):\n        return x.flatten(1)[:, :10]\n"
    reference = code(body + "def build(): return Look(1, 1)")
    images = torch.rand(4, 1, 8, 8)
    plain = foreign.teacher(config(teacher=reference), (1, 8, 8), 10)(images)
    shifted = foreign.teacher(config(teacher=reference, teacher_normalize="0.25/0.5"), (1, 8, 8), 10)(images)
    assert torch.equal(plain, images.flatten(1)[:, :10])
    torch.testing.assert_close(shifted, (plain - 0.25) / 0.5)


@pytest.mark.parametrize("encoding", ["rate", "latency"])
def test_it_sees_the_picture_where_the_student_sees_spikes(encoding: str, weights: Path, taught: Run) -> None:
    options = {"augment": "mixup", "precision": "bf16", "teacher_weights": str(weights)}
    made = train(config(encoding=encoding, timesteps=3, **options), out="run")
    assert made.accuracies["teacher"] == taught.accuracies["teacher"]
    assert made.document["teacher"]["foreign"]["uncounted"] == []
    graphs = read_run(made).teacher, read_run(taught).teacher
    assert graphs[0] is not None
    assert graphs[1] is not None
    images = load("digits").test.images[:50].astype(int)
    assert np.array_equal(simulate(graphs[0], images).logits, simulate(graphs[1], images).logits)


def test_it_sees_the_mean_of_frames_and_is_counted_on_it(here: Path) -> None:
    folder = write_recordings(here / "events", train=2, test=1)
    made = train(config(dataset="n-mnist", data_dir=str(folder), timesteps=3, batch_size=10), out="run")
    assert made.document["teacher"]["foreign"]["uncounted"] == []
    test, graph = load("n-mnist", folder, 3).test, read_run(made).teacher
    assert graph is not None
    frames = torch.tensor(test.images, dtype=torch.float32)
    network = foreign.teacher(made.config, (3, 2, 34, 34), 10, made.teacher_file)
    torch.testing.assert_close(network(frames), network(frames.mean(1, keepdim=True).expand_as(frames)))
    np.testing.assert_allclose(simulate(graph, test.pictures(slice(None))).logits, network(frames), atol=1e-4)


def test_it_teaches_several_processes_as_one(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE.parents[1])  # processes that are started find the tests
    notes = Notes()
    options = {"method": "bkd", "teacher_weights": str(weights), "optimizer": "sgd", "batch_size": 256}
    two = train(config(**options, devices=2), out="two", watch=notes)
    one = train(config(**options), out="one")
    assert sum("test accuracy" in line for line in notes.lines) == 1
    assert two.teacher_file.read_bytes() == one.teacher_file.read_bytes()
    assert two.accuracies["teacher"] == one.accuracies["teacher"]
    assert read_run(two).teacher is not None
    kept = [safetensors.torch.load_file(made.student_file) for made in (one, two)]
    for name, tensor in kept[0].items():
        torch.testing.assert_close(tensor, kept[1][name], rtol=1e-2, atol=1e-2)  # single precision


def test_normalised_teachers_are_counted_too() -> None:
    made = train(config(teacher=code(CNN), teacher_normalize="0.3/0.4"), out="run")
    assert made.document["teacher"]["foreign"]["uncounted"] == []


def test_the_function_may_take_the_shape_or_nothing_and_import_what_lies_beside_it(here: Path) -> None:
    (here / "beside").mkdir()
    (here / "beside" / "my_layers.py").write_text(HEAD + CNN)
    (here / "beside" / "mine.py").write_text("def build(shape):\n    import my_layers\n    assert shape == (1, 8, 8)\n"
                                             "    return my_layers.build()\n")  # fmt: skip
    before = list(sys.path)
    assert foreign.teacher(config(teacher="beside/mine.py:build"), (1, 8, 8), 10).names == ("3", "7")
    assert sys.path == before
    sys.modules.pop("my_layers")


def test_a_function_of_a_module_that_can_be_imported_will_do(here: Path) -> None:
    code(CNN, "importable_teacher.py")
    made = train(config(teacher="importable_teacher:build"), out="run")
    assert made.config.teacher == "importable_teacher:build"
    sys.modules.pop("importable_teacher")


class Interrupt(Silent):
    def epoch(self, row: Any) -> None:
        raise KeyboardInterrupt


def test_a_run_resumes_with_its_code_and_is_refused_if_that_has_changed(here: Path) -> None:
    chosen = config(teacher=code(CNN), epochs=2, method="bkd")
    whole = train(chosen, out="whole")
    for name in ("one", "two"):
        with pytest.raises(KeyboardInterrupt):
            train(chosen, out=name, watch=Interrupt())
    assert train(out="one", resume=True).student_file.read_bytes() == whole.student_file.read_bytes()
    code(CNN + "\n# changed\n")
    with pytest.raises(RunError, match=r"two was started with other code: .*mine.py:build has changed since"):
        train(out="two", resume=True)


def test_the_teacher_of_such_a_run_is_used_again(taught: Run) -> None:
    again = train(load_config(width=4, epochs=1, threads=1, teacher=str(taught.path)), out="again")
    assert again.teacher_file.read_bytes() == taught.teacher_file.read_bytes()
    assert again.config.teacher == taught.config.teacher
    assert again.accuracies["teacher"] == taught.accuracies["teacher"]


def test_code_is_not_run_to_read_a_run(taught: Run) -> None:
    with pytest.raises(RunError, match="is code, .*my_teacher.py:build; a run holds its weights alone"):
        models.load(taught)


def test_the_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    foreign.teacher(config(), (1, 8, 8), 10)
    assert torch.equal(torch.rand(1), expected)
