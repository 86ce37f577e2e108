"""The command line: quick to start, one message per refusal, the exit codes of the error tree."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from snnkd_deploy import api, cli
from snnkd_deploy.bundle import Bundle
from snnkd_deploy.cli import main
from snnkd_deploy.run import Run

HEAVY = (
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "snntorch",
    "h5py",
    "nir",
    "sklearn",
    "rich",
    "safetensors",
    "matplotlib",
)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_help_needs_no_heavy_package() -> None:
    code = (
        "import sys\nfrom snnkd_deploy.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_explains_itself_and_has_its_function(command: str) -> None:
    done = call(command, "--help")
    assert done.exit_code == 0
    assert callable(getattr(api, command))


def test_every_setting_of_a_run_is_an_option() -> None:
    shown = call("train", "--help").output
    settings = {*cli.SETTINGS}
    from dataclasses import fields

    from snnkd_deploy.config import TrainConfig

    assert {field.name for field in fields(TrainConfig)} - {"method_options"} == settings
    for name in settings:
        assert "--" + name.replace("_", "-") in shown
    assert "--method-option" in shown


def test_a_term_of_the_logits_is_an_option_of_the_method(workplace: Path) -> None:
    quick = ("--width", 4, "--epochs", 1, "--teacher-epochs", 1, "--threads", 1, "--json")
    done = call("train", *quick, "--method", "bkd", "--logits", "kd", "--method-option", "blur=0.5")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["config"]["method_options"] == {"blur": 0.5, "logits": "kd"}
    refused = call("train", *quick, "--method", "none", "--logits", "kd")
    assert refused.exit_code == 2
    assert "method 'none': no option 'logits'" in refused.output
    assert call("train", "--resume", "--logits", "kd").exit_code == 2


def test_training_goes_on_as_integers_in_one_command(workplace: Path) -> None:
    quick = ("--width", 4, "--epochs", 1, "--teacher-epochs", 1, "--threads", 1, "--out", "run", "--qat")
    done = call("train", *quick, "--target", "onnx", "--weight-bits", 4)
    assert done.exit_code == 0, done.output
    for words in ("rounded", "integers, 4 bits, onnx", "next: snnkd-deploy export run-qat --target onnx"):
        assert words in done.output
    for wrong, code, words in (
        (("--weight-bits", 9), 2, "weight bits 9: loihi takes 2..8"),
        (("--reset", "subtract"), 4, "reset 'subtract'; this target resets by 'zero'"),
        (("--target", "loihi9"), 2, "no target 'loihi9'"),
    ):
        refused = call("train", *quick[:-3], "--out", "other", "--qat", *wrong)
        assert refused.exit_code == code, refused.output
        assert words in refused.output
        assert not Path("other").exists()  # nothing was trained
    refused = call("train", "--weight-bits", 4)
    assert (refused.exit_code, "go with --qat" in refused.output) == (2, True)


def test_fine_tuning_prints_what_came_of_it_and_what_comes_next(tiny_run: Run, workplace: Path) -> None:
    done = call("finetune", tiny_run.path, "--target", "onnx", "--weight-bits", 4, "--epochs", 1, "--out", "tuned")
    assert done.exit_code == 0, done.output
    for words in ("rounded", "fine-tuned", "integers, 4 bits, onnx", "next: snnkd-deploy export tuned --target onnx"):
        assert words in done.output
    done = call("export", "tuned", "--target", "onnx", "--samples", 5)
    assert done.exit_code == 0, done.output
    refused = call("finetune", tiny_run.path, "--target", "loihi", "--granularity", "channel")
    assert refused.exit_code == 2
    assert "granularity 'channel': loihi takes layer" in refused.output


def test_a_run_goes_on_in_another_place(tiny_run: Run) -> None:
    done = call("train", "--resume", "--out", tiny_run.path, "--threads", 2, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["config"] == tiny_run.document["config"]  # it is finished already
    refused = call("train", "--resume", "--out", tiny_run.path, "--batch-size", 8)
    assert "give no others than --threads, --device, --devices, --nodes" in refused.output


def test_the_help_names_what_there_is() -> None:
    """Names stand in the help as text, because looking them up would import torch."""
    from snnkd_deploy.data import SOURCES
    from snnkd_deploy.distill import methods
    from snnkd_deploy.snn.engines import ENGINES
    from snnkd_deploy.snn.models import MODELS

    for setting, names in {"dataset": SOURCES, "method": methods(), "engine": ENGINES, "model": MODELS}.items():
        words = cli.SETTINGS[setting].replace(",", " ").split()
        assert set(names) <= set(words), setting


def test_the_three_commands_in_a_row(workplace: Path) -> None:
    quick = ("--width", 4, "--teacher-width", 4, "--epochs", 2, "--teacher-epochs", 2, "--threads", 1)
    done = call("train", *quick)
    assert done.exit_code == 0, done.output
    assert "runs/digits-1" in done.output
    done = call("export", "--target", "loihi", "--samples", 5)
    assert done.exit_code == 0, done.output
    assert "netx-replay" in done.output
    assert "loihi, estimated: " in done.output
    done = call("mapping")
    assert done.exit_code == 0, done.output
    assert "room in a core" in done.output
    assert "An estimate" in done.output
    assert json.loads(call("mapping", "--json").output)["chips"] == 1
    assert (workplace / "runs/digits-1/exports/loihi/network.net").is_file()
    done = call("energy", "report.json", "--samples", 20)
    assert done.exit_code == 0, done.output
    before = (workplace / "report.json").read_bytes()
    again = call("energy", "report.json")
    assert again.exit_code == 0
    assert again.output == done.output
    assert (workplace / "report.json").read_bytes() == before


def test_the_limits_of_one_target_have_their_sources() -> None:
    told = " ".join(call("targets", "loihi2").output.split())
    assert "bias minimum -4095, maximum 4095" in told
    assert "bias mantissa of 12 bits" in told
    assert list(json.loads(call("targets", "loihi2", "--json").output)) == ["loihi2"]
    assert "no target 'loihi9'" in call("targets", "loihi9").output


def test_json_is_json(tiny_bundle: Bundle) -> None:
    assert set(json.loads(call("targets", "--json").output)) >= {"loihi", "onnx", "nir"}
    proofs = json.loads(call("verify", tiny_bundle.path, "--samples", 3, "--json").stdout)
    assert proofs["proofs"][0]["differing"] == 0


OWN = """
import snntorch as snn
from torch import nn
def net():
    lif = {"beta": 0.5, "init_hidden": True, "reset_mechanism": "zero"}
    return nn.Sequential(nn.Conv2d(1, 2, 3), snn.Leaky(**lif), nn.Flatten(), nn.Linear(72, 10), snn.Leaky(**lif))
"""


def test_a_network_of_your_own_is_checked_and_exported(workplace: Path) -> None:
    (workplace / "mine.py").write_text(OWN)
    done = call("check", "--target", "loihi", "--model", "mine.py:net", "--input-shape", "1,8,8", "--timesteps", 3)
    assert done.exit_code == 0, done.output
    assert "loihi can hold this mine.py:net: 2 layers with weights, 3 timesteps" in done.output
    assert "Neuron, decay 0.5, threshold 1, reset zero" in done.output
    own = ("--model", "mine.py:net", "--dataset", "digits", "--timesteps", 3)
    done = call("export", "--target", "onnx", *own, "--samples", 20)
    assert done.exit_code == 0, done.output
    assert "0 of " in done.output
    assert (workplace / "exports/mine/onnx/samples.npz").is_file()
    assert call("verify", "exports/mine/onnx").exit_code == 0


def test_a_function_that_can_be_imported_is_told_shape_and_classes(workplace: Path) -> None:
    taking = OWN.replace("def net():", "def net(shape, classes):").replace(
        "nn.Linear(72, 10)", "nn.Linear(72, classes)"
    )
    (workplace / "importable_network.py").write_text(taking.replace("nn.Conv2d(1,", "nn.Conv2d(shape[0],"))
    own = ("--model", "importable_network:net", "--timesteps", 3)
    done = call("check", "--target", "loihi", *own, "--dataset", "digits")
    assert done.exit_code == 0, done.output
    assert "loihi can hold this importable_network:net" in done.output
    assert call("export", "--target", "npz", *own, "--dataset", "digits", "--samples", 5).exit_code == 0
    assert (workplace / "exports/importable_network/npz").is_dir()
    done = call("check", "--target", "loihi", *own, "--input-shape", "1,8,8")
    assert done.exit_code == 3
    assert "'classes'" in done.output
    assert "of shape it is given what it names" in done.output
    del sys.modules["importable_network"]


def test_check_prints_what_is_refused_and_json(workplace: Path) -> None:
    (workplace / "mine.py").write_text(OWN.replace("nn.Flatten()", "nn.GELU(), nn.Flatten()"))
    arguments = ("check", "--target", "loihi", "--model", "mine.py:net", "--input-shape", "1,8,8", "--timesteps", 3)
    done = call(*arguments)
    assert done.exit_code == 4
    assert "REFUSED, see below" in done.output
    assert "2: GELU has no node; known are" in done.output
    assert '"refused": [' in call(*arguments, "--json").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "--weights", "w.pt"), "--weights: goes with --model"),
        (("export", "run", "--model", "mine.py:net"), "one of them is needed"),
        (("check", "--target", "onnx", "--percentile", 9), "--percentile: goes with a --model of your own"),
        (("check", "--target", "onnx", "--model", "mine.py:net", "--input-shape", "a"), "CHANNELS,HEIGHT,WIDTH"),
    ],
)
def test_options_of_a_network_of_your_own_need_one(arguments: tuple[object, ...], message: str) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_check_answers_before_any_training() -> None:
    assert "loihi can hold this cnn" in call("check", "--target", "loihi").output
    done = call("check", "--target", "loihi", "--model", "resnet", "--width", 4, "--depth", 1)
    assert "loihi can hold this resnet" in done.output
    done = call("check", "--target", "loihi", "--reset", "subtract")
    assert "reset 'subtract'; this target resets by 'zero'" in done.output


def test_diff_says_same_or_where(tiny_bundle: Bundle, tiny_run: Run, tmp_path: Path) -> None:
    assert "the same network" in call("diff", tiny_bundle.path, tiny_bundle.path).output
    other = api.export(tiny_run, "onnx", tmp_path / "b", api.ExportOptions(weight_bits=4))
    done = call("diff", tiny_bundle.path, other.path)
    assert done.exit_code == 1
    assert "blocks.0.conv" in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("export",), 3, "no finished run in runs; train one with: snnkd-deploy train"),
        (("export", "nothing"), 3, "no run at nothing"),
        (("energy", "report.json"), 3, "no finished run in runs"),
        (("verify", "nothing"), 3, "no bundle at nothing"),
        (
            ("export", "--target", "loihi9"),
            2,
            "no target 'loihi9'; known: c, loihi, loihi2, native, nir, npz, onnx, snntorch; did you mean",
        ),
        (("train", "--dataset", "fashon-mnist"), 2, "did you mean 'fashion-mnist'"),
        (("train", "--dataset", "fashion-mnist"), 2, "{train,t10k}-images-idx3-ubyte"),
        (("train", "--method", "logit"), 2, "did you mean 'logits'"),
        (("train", "--method-option", "temperature"), 2, "KEY=VALUE is needed"),
        (("train", "--method-option", "temprature=2"), 2, "no option 'temprature'; accepted: "),
        (("train", "--model", "cn"), 2, "did you mean 'cnn'"),
        (("train", "--epochs", "0"), 2, "epochs"),
        (("train", "--resume", "--epochs", "3"), 2, "give no others"),
        (("train", "--config", "nothing.toml"), 2, "nothing.toml"),
        (("train", "--resume"), 3, "no unfinished run"),
        (("check", "--target", "mine.toml"), 2, "no target file mine.toml"),
    ],
)
def test_a_refusal_is_one_message_and_its_exit_code(
    arguments: tuple[str, ...], code: int, message: str, workplace: Path
) -> None:
    done = call(*arguments)
    assert done.exit_code == code, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert not list(workplace.rglob("*.partial"))


def test_a_report_that_is_none_is_refused(workplace: Path) -> None:
    (workplace / "report.json").write_text("{")
    done = call("energy", "report.json")
    assert done.exit_code == 3
    assert "report.json" in done.output


@pytest.mark.parametrize(
    ("number", "text"), [(errno.ENOSPC, "No space left on device"), (errno.EACCES, "Permission denied")]
)
def test_a_disk_that_refuses_is_one_message(number: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number), "report.json")

    monkeypatch.setattr(api, "energy", refuse)
    done = call("energy", "report.json")
    assert done.exit_code == 7
    assert done.output.strip() == f"error: the system refused report.json: {text}"


def test_a_folder_without_write_permission_is_one_message(tiny_bundle: Bundle, workplace: Path) -> None:
    (workplace / "file").write_text("")
    done = call("energy", "file/report.json", "--bundle", tiny_bundle.path, "--samples", 2)
    assert done.exit_code == 7
    assert "cannot write" in done.output


LIMITED = """
import resource, signal, sys
from snnkd_deploy.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--width", "4", "--epochs", "1", "--teacher-epochs", "1", "--threads", "1"),
        ("export", "RUN", "--target", "onnx", "--out", "b"),
        ("export", "RUN", "--target", "nir", "--out", "b"),
        ("export", "RUN", "--target", "loihi", "--out", "b"),
        ("energy", "report.json", "--bundle", "BUNDLE", "--samples", "2"),
    ],
    ids=lambda command: "-".join(command[:1] + command[3:4]),
)
def test_a_write_that_the_system_cuts_short_is_one_message(
    command: tuple[str, ...], tiny_bundle: Bundle, tiny_run: Run, workplace: Path
) -> None:
    """No file may grow beyond 1,500 bytes here, so each command meets a write that the system really refuses."""
    arguments = [{"RUN": str(tiny_run.path), "BUNDLE": str(tiny_bundle.path)}.get(one, one) for one in command]
    done = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert not list(workplace.rglob("*.partial"))
    assert not (workplace / "b").exists()
    assert not (workplace / "report.json").exists()


def test_an_interrupt_ends_with_130_and_leaves_nothing_half_written(workplace: Path) -> None:
    program = Path(sys.executable).with_name("snnkd-deploy")
    process = subprocess.Popen(
        [program, "train", "--teacher-epochs", "500", "--threads", "1"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith("teacher 1/500")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not list(workplace.rglob("*.partial"))
    assert call("export").exit_code == 3
