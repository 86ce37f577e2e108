"""Price tables as files: what is shipped, what a user may add, what is refused and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.price_files import load_table, load_tables, parse_table, table_names
from snnkd_deploy.prices import OPERATIONS, Memory, Table

TEXT = """
name = "mine"
title = "a table"
scope = "chip"
node_nm = 14
volt = "not stated"
evidence = "measured"
source = "a paper"
covers = "synapses"
excludes = ["memory"]
included = ["bias"]

[prices]
synop_pj = [1, 2.0, 4]
neuron_active_pj = 10
neuron_inactive_pj = 5
"""

PARTS = (
    TEXT
    + """
[memory]
word_bits = 64
sizes_bytes = [8192, 32768]
access_pj = [10, 20]
values = "packed"
value_bits = "model"
event_bits = 16
fifo_entries = 1000
scale = [1, 1, 2]
evidence = "published"
source = "a paper"

[static]
mw_per_chip = 100
volt = 0.7
evidence = "measured"
source = "another paper"

[times]
synop_ns = 3.5
barrier_ns = [1, 2, 3]

[[anchor]]
network = "a network"
neurons = [10, 12]
timesteps = 4
dynamic_mj = 1
total_mj = 2.5
source = "a notebook"
"""
)


def table(text: str = TEXT) -> Table:
    return parse_table(text, "mine.toml")


@pytest.mark.parametrize("name", table_names())
def test_shipped_tables_load_under_their_file_name(name: str) -> None:
    found = load_table(name)
    assert found.name == name
    assert set(found.prices) <= set(OPERATIONS[found.scope])
    assert all(0 < low <= nominal <= high for low, nominal, high in found.prices.values())


def test_shipped_arithmetic_is_consistent() -> None:
    for found in (load_table(name) for name in table_names()):
        if found.scope == "arithmetic":
            assert found.prices["add"] == found.prices["synop"]
            assert "mac" not in found.prices or found.prices["mac"][1] > found.prices["synop"][1]
        elif found.scope == "chip":
            assert found.prices.get("neuron_active", (1,) * 3)[1] >= found.prices.get("neuron_inactive", (1,) * 3)[1]
    for name, bits in (("cmos45_fp32", 32), ("cmos45_fp16", 16), ("cmos45_int32", 32)):
        prices = load_table(name).prices
        assert prices["mac"][1] == pytest.approx(prices["leak_multiply"][1] + prices["add"][1]), bits


def test_the_prices_of_horowitz_are_in_every_table_that_names_him() -> None:
    multiply_add = {"fp32": 3.7 + 0.9, "fp16": 1.1 + 0.4, "int32": 3.1 + 0.1, "int8": 0.2 + 0.03}
    multiply_add["int8_acc32"] = 0.2 + 0.1
    found = {name: load_table(f"cmos45_{name}").prices["mac"][1] for name in multiply_add}
    assert found == {name: pytest.approx(value) for name, value in multiply_add.items()}
    memory = load_table("cmos45_int8_sram").memory
    assert memory is not None
    assert dict(zip(memory.sizes_bytes, memory.access_pj, strict=True)) == {8192: 10, 32768: 20, 1048576: 100}


def test_whole_chip_prices_leave_nothing_to_be_added() -> None:
    marginal, average = load_table("truenorth_marginal"), load_table("truenorth_average")
    assert set(marginal.prices) == set(average.prices) == {"synop"}
    assert {"neurons", "spikes", "routing"} <= set(marginal.included)
    assert "static" in average.included
    assert average.static is None


def test_numbers_and_ranges_become_low_nominal_high() -> None:
    prices = table().prices
    assert prices["synop"] == (1.0, 2.0, 4.0)
    assert prices["neuron_active"] == (10.0, 10.0, 10.0)


def test_a_table_of_ones_own_is_read_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    assert load_table(str(path)) == table()
    assert [one.name for one in load_tables([str(path), "cmos45_fp32"])] == ["mine", "cmos45_fp32"]


def test_without_names_all_shipped_tables_are_loaded() -> None:
    assert [one.name for one in load_tables()] == table_names()


def test_two_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace('"mine"', '"cmos45_fp32"'))
    with pytest.raises(ConfigError, match="two price tables are called 'cmos45_fp32'"):
        load_tables(["cmos45_fp32", str(path)])


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"no price table 'cmos45'; known: .*cmos45_fp32"):
        load_table("cmos45")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no price table .*none\.toml"):
        load_table(str(tmp_path / "none.toml"))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"cannot read the price table .*folder\.toml"):
        load_table(str(folder))


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("synop_pj", "synopp_pj", "unknown key 'prices.synopp_pj'; did you mean 'synop_pj'?"),
        ("synop_pj", "synop_nj", "unknown key 'prices.synop_nj'"),
        ("neuron_active_pj", "leak_multiply_pj", "unknown key 'prices.leak_multiply_pj'"),
        ("evidence", "evidense", "missing key 'evidence'"),
        ('"measured"', '"guessed"', "evidence = 'guessed': accepted is 'measured' or"),
        ('"chip"', '["chip"]', "scope = ['chip']: accepted is 'arithmetic' or 'chip'"),
        ('source = "a paper"', 'source = " "', "source = ' ': accepted is a text"),
        ('["memory"]', '"memory"', "excludes = 'memory': accepted is a list of texts"),
        ('["bias"]', '["biases"]', "included: no group 'biases'; known: bias, pooling, residual, neurons"),
        ('volt = "not stated"', "volt = 0", "volt = 0: accepted is a number above 0 or 'not stated'"),
        ("[1, 2.0, 4]", "[1, 2.0]", "prices.synop_pj = [1, 2.0]: accepted is a number or [low, nominal, high]"),
        ("[1, 2.0, 4]", "[2, 1, 4]", "prices.synop_pj = [2, 1, 4]: accepted is"),
        ("[1, 2.0, 4]", "[1, 2, inf]", "prices.synop_pj = [1, 2, inf]: accepted is"),
        ("= 10", "= -1", "prices.neuron_active_pj = -1: accepted is"),
        ("synop_pj", "synop", "prices.synop has no unit: write synop_pj"),
        ('source = "a paper"', "", "missing key 'source'"),
        ("= 10", '= { pj = 10, evidence = "derived" }', "missing key 'prices.neuron_active_pj.source'"),
        ("= 10", '= { pj = -1, evidence = "derived", source = "s" }', "prices.neuron_active_pj.pj = -1: accepted is"),
        ("= 10", "= true", "prices.neuron_active_pj = True: accepted is"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_the_name_of_its_file(before: str, after: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table(TEXT.replace(before, after, 1))
    assert str(caught.value).startswith("mine.toml is not a price table:")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('values = "packed"', 'values = "loose"', "memory.values = 'loose': accepted is 'packed' or 'whole'"),
        ("[8192, 32768]", "[32768, 8192]", "memory.sizes_bytes = [32768, 8192]: accepted is a growing list of numbers"),
        ("[10, 20]", "[10]", "memory.access_pj has 1 values for 2 sizes_bytes"),
        ("[10, 20]", '"10"', "memory.access_pj = '10': accepted is a list of numbers, in pJ"),
        ('value_bits = "model"', "value_bits = 0", "memory.value_bits = 0: accepted is an integer above 0 or 'model'"),
        ("word_bits = 64", "", "missing key 'memory.word_bits'"),
        ("mw_per_chip = 100", "mw_per_chip = [2, 1, 3]", "static.mw_per_chip = [2, 1, 3]: accepted is a number or"),
        ("synop_ns = 3.5", "synop = 3.5", "times.synop has no unit: write synop_ns"),
        ("synop_ns = 3.5", "synops_ns = 3.5", "unknown key 'times.synops_ns'; did you mean 'synop_ns'?"),
        ("barrier_ns = [1, 2, 3]", "barrier_ns = 'x'", "times.barrier_ns = 'x': accepted is a number or"),
        ("neurons = [10, 12]", "neurons = 10", "anchor[0].neurons = 10: accepted is two counts"),
        ("[[anchor]]", "[capacity]\nactivation_bits = 8\n[[anchor]]", "missing key 'capacity.multiply_pj'"),
    ],
)
def test_what_is_wrong_with_the_parts_of_a_table_is_said(before: str, after: str, reason: str) -> None:
    assert before in PARTS
    with pytest.raises(ConfigError) as caught:
        table(PARTS.replace(before, after, 1))
    assert reason in str(caught.value)


def test_parts_that_are_no_tables_are_refused() -> None:
    for part in ("memory", "static", "times", "capacity"):
        with pytest.raises(ConfigError, match=rf"{part} = 1: accepted is a table"):
            table(f"{part} = 1\n" + TEXT)
    with pytest.raises(ConfigError, match=r"anchor\[0\] = 1: accepted is a table"):
        table("anchor = [1]\n" + TEXT)


@pytest.mark.parametrize(
    ("group", "price"),
    [
        ("neurons", "neuron_active_pj = 10"),
        ("spikes", "spike_pj = 1"),
        ("routing", "message_pj = 1"),
        ("routing", "hop_east_west_pj = 1"),
    ],
)
def test_nothing_is_charged_twice(group: str, price: str) -> None:
    text = TEXT.replace('["bias"]', f'["{group}"]').partition("neuron_active")[0] + price
    with pytest.raises(ConfigError, match=rf"would be charged twice: included says that another price covers {group}"):
        table(text)


def test_static_power_is_not_charged_twice() -> None:
    with pytest.raises(ConfigError, match="static would be charged twice"):
        table(PARTS.replace('["bias"]', '["static"]'))


def test_the_parts_of_a_table_are_read() -> None:
    found = table(PARTS)
    assert isinstance(found.memory, Memory)
    assert (found.memory.value_bits, found.memory.scale) == (None, (1.0, 1.0, 2.0))
    assert found.static is not None
    assert (found.static.mw_per_chip, found.static.volt) == ((100.0,) * 3, 0.7)
    assert found.times == {"synop": (3.5,) * 3, "barrier": (1.0, 2.0, 3.0)}
    assert found.anchors[0].neurons == (10, 12)


def test_a_price_may_have_a_source_of_its_own() -> None:
    found = table(TEXT.replace("= 10", '= { pj = [1, 2, 3], evidence = "derived", source = "a guess" }'))
    assert found.prices["neuron_active"] == (1.0, 2.0, 3.0)
    assert found.origins == {"neuron_active": ("derived", "a guess")}


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        table(TEXT.replace('"measured"', '"guessed"').replace("= 10", "= -1").replace("title", "titel"))
    assert str(caught.value).count("\n  - ") == 4


def test_a_table_without_prices_is_refused() -> None:
    head = TEXT.partition("[prices]")[0]
    with pytest.raises(ConfigError, match="at least one operation must have a price"):
        table(head + "[prices]\n")
    with pytest.raises(ConfigError, match="prices = 3: accepted is a table"):
        table("prices = 3\n" + head)
    with pytest.raises(ConfigError, match="missing key 'prices'"):
        table(head)


def test_broken_toml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml is not valid TOML"):
        table("name = ")


def test_the_digest_follows_the_meaning_not_the_layout() -> None:
    assert table("# a comment\n" + TEXT).digest == table().digest
    assert table(TEXT.replace("= 10", "= 11")).digest != table().digest
