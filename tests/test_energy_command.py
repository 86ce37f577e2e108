"""`snnkd-deploy energy`: counts once, prices again without the model, writes what is asked for, compares, refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from snnkd_deploy import energy
from snnkd_deploy.bundle import Bundle
from snnkd_deploy.cli import main
from snnkd_deploy.price_files import load_tables
from tests.energy.reports import report, teacher
from tests.test_price_files import TEXT


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def outs(*names: str) -> list[str]:
    return [part for name in names for part in ("--out", name)]


@pytest.fixture
def written(workplace: Path) -> Path:
    """A report that needs no export."""
    path = workplace / "report.json"
    energy.write(path, energy.price(report(taught=teacher()), load_tables(["cmos45_fp32"])))
    return path


def test_the_first_call_counts_and_writes_with_prices(tiny_bundle: Bundle, workplace: Path) -> None:
    done = call("energy", "report.json", "--bundle", tiny_bundle.path, "--samples", 8)
    assert done.exit_code == 0, done.output
    found = json.loads((workplace / "report.json").read_text())
    assert [one["table"] for one in found["energy"]] == [one.name for one in load_tables()]
    assert found["model"]["training"] == {"model": "cnn", "method": "logits", "width": 4, "seed": 0}
    assert found["model"]["state_bits"] == 24
    jsonschema.Draft202012Validator(energy.json_schema()).validate(found)
    again = call("energy", "report.json", "--bundle", "nowhere")
    assert again.output == done.output


def test_prices_change_what_is_shown_and_not_the_report(written: Path) -> None:
    before = written.read_bytes()
    done = call("energy", written, "--table", "lemaire2022")
    assert "lemaire2022" in done.output
    assert "cmos45_fp32" not in done.output
    assert written.read_bytes() == before


def test_pricing_again_needs_neither_torch_nor_the_model(written: Path) -> None:
    code = (
        "import sys; from snnkd_deploy.cli import main\n"
        "main(['energy', 'report.json'], standalone_mode=False)\n"
        "sys.exit(bool({'torch', 'onnx', 'matplotlib'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=written.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "No verdict" in done.stdout


def test_files_are_written_by_their_suffix(written: Path) -> None:
    done = call("energy", written, "--table", "cmos45_fp32", *outs("a.csv", "a.md", "a.json"))
    assert done.exit_code == 0, done.output
    folder = written.parent
    assert {path.name for path in folder.glob("a.*")} == {"a.csv", "a.md", "a.json"}
    assert energy.read(folder / "a.json")["counts_sha256"] == energy.read(written)["counts_sha256"]


def test_another_suffix_is_refused_before_anything_is_counted(tiny_bundle: Bundle, workplace: Path) -> None:
    done = call("energy", "report.json", "--bundle", tiny_bundle.path, "--out", "report.pdf")
    assert done.exit_code == 2
    assert "cannot write report.pdf: its name must end in .html, .md, .csv, .json" in done.output
    assert not (workplace / "report.json").exists()


def test_full_tells_more_and_json_everything(written: Path) -> None:
    short, full = call("energy", written).output, call("energy", written, "--full").output
    assert "Break-even, by table and ANN" in full
    assert "Break-even, by table and ANN" not in short
    assert json.loads(call("energy", written, "--json").output)["headline"]["verdict"] is None


def test_the_schema_can_be_printed() -> None:
    done = call("energy", "--schema")
    assert json.loads(done.output) == energy.json_schema()


def test_several_reports_are_compared(written: Path) -> None:
    other = written.parent / "other.json"
    other.write_bytes(written.read_bytes())
    done = call("energy", written, other, "--out", "c.html", "--out", "c.md")
    assert done.exit_code == 0, done.output
    assert "Accuracy against energy" in done.output
    assert "no other run beats in both" in (written.parent / "c.html").read_text()
    found = json.loads(call("energy", written, other, "--table", "cmos45_fp32", "--json").output)
    assert [run["name"] for run in found["runs"]] == ["report", "other"]
    assert found["tables"] == ["cmos45_fp32"]


def test_reports_of_one_name_are_told_apart_by_their_folders(written: Path) -> None:
    folder = written.parent / "two"
    folder.mkdir()
    (folder / "report.json").write_bytes(written.read_bytes())
    found = json.loads(call("energy", "report.json", "two/report.json", "--json").output)
    assert [run["name"] for run in found["runs"]] == ["report.json", "two/report.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "name the report to write or to read"),
        (
            ("report.json", "report.json", "--refresh"),
            2,
            "--bundle, --model, --refresh and --samples are for one report",
        ),
        (("report.json", "missing.json"), 3, "no report at missing.json"),
        (("report.json", "--table", "cmos45"), 2, "no price table 'cmos45'; known: "),
        (("report.json", "--table", "mine.toml"), 2, "no price table mine.toml"),
        (("report.json", "--table", "unit.toml"), 2, "prices.synop has no unit: write synop_pj"),
        (("report.json", "--table", "source.toml"), 2, "missing key 'source'"),
        (("old.json",), 3, "energy report of version 1; this program reads version 2"),
        (("edited.json",), 3, "its counts are not those that were written (counts_sha256 differs)"),
        (("cut.json",), 3, "is not a report: not valid JSON"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: tuple[str, ...], code: int, text: str, written: Path) -> None:
    folder, content = written.parent, json.loads(written.read_text())
    (folder / "unit.toml").write_text(TEXT.replace("synop_pj", "synop"))
    (folder / "source.toml").write_text(TEXT.replace('source = "a paper"\n', ""))
    (folder / "old.json").write_text(json.dumps({**content, "schema_version": 1}))
    (folder / "edited.json").write_text(json.dumps({**content, "layers": content["layers"][:1]}))
    (folder / "cut.json").write_text(written.read_text()[:5000])
    done = call("energy", *arguments)
    assert done.exit_code == code, done.output
    assert text in done.output
    assert done.output.count("error:") == 1
