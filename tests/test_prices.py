"""Price tables: what is shipped, what is refused, and sums and ratios worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from snnkd_deploy.errors import ConfigError, UnknownNameError
from snnkd_deploy.prices import (
    OPERATIONS,
    Charge,
    Table,
    bill,
    load_table,
    load_tables,
    parse_table,
    ratio,
    split,
    table_names,
    total,
)

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
            assert found.prices["mac"][1] > found.prices["synop"][1]
        else:
            assert found.prices["neuron_active"][1] > found.prices["neuron_inactive"][1]
            assert "mac" not in found.prices
    fp32 = load_table("cmos45_fp32").prices
    assert fp32["mac"][1] == pytest.approx(fp32["leak_multiply"][1] + fp32["add"][1])


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
        ('["bias"]', '["biases"]', "included: no group 'biases'; known: bias, pooling, residual, spikes"),
        ('volt = "not stated"', "volt = 0", "volt = 0: accepted is a number above 0 or 'not stated'"),
        ("[1, 2.0, 4]", "[1, 2.0]", "prices.synop_pj = [1, 2.0]: accepted is a number or [low, nominal, high]"),
        ("[1, 2.0, 4]", "[2, 1, 4]", "prices.synop_pj = [2, 1, 4]: accepted is"),
        ("[1, 2.0, 4]", "[1, 2, inf]", "prices.synop_pj = [1, 2, inf]: accepted is"),
        ("= 10", "= -1", "prices.neuron_active_pj = -1: accepted is"),
        ("= 10", "= true", "prices.neuron_active_pj = True: accepted is"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_the_name_of_its_file(before: str, after: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table(TEXT.replace(before, after, 1))
    assert str(caught.value).startswith("mine.toml is not a price table:")
    assert reason in str(caught.value)


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


def test_a_bill_in_pj_by_hand() -> None:
    charges = [
        Charge("conv", "synapses", "synop_conv", 6),
        Charge("fc", "synapses", "synop_linear", 4),
        Charge("conv", "bias", "add", 100),
        Charge("lif", "neurons", "neuron_active", 2),
        Charge("conv", "graded", "mac", 7),
    ]
    due = bill(charges, table())
    assert dict(due) == {"synop": 10, "neuron_active": 2, None: 7}
    assert total(due, table(), samples=2) == [15.0, 20.0, 30.0]
    assert split(charges, table(), 2, "layer") == {
        "conv": [3.0, 6.0, 12.0],
        "fc": [2.0, 4.0, 8.0],
        "lif": [10.0, 10.0, 10.0],
    }
    assert split(charges, table(), 2, "group") == {"synapses": [5.0, 10.0, 20.0], "neurons": [10.0, 10.0, 10.0]}


def test_layers_may_have_prices_of_their_own() -> None:
    own = table(TEXT.replace("synop_pj", "synop_conv_pj"))
    assert own.key("synop_conv") == "synop_conv"
    assert own.key("synop_linear") is None
    assert table().key("host synop_conv") is None


def test_both_sides_of_a_ratio_pay_the_same_price_of_the_range() -> None:
    over = bill([Charge("a", "", "synop", 10), Charge("b", "", "neuron_active", 1)], table())
    under = bill([Charge("a", "", "synop", 5)], table())
    assert ratio(over, under, table()) == [50 / 20, 30 / 10, 20 / 5]


def test_there_is_no_ratio_without_all_prices_or_over_nothing() -> None:
    assert ratio({"synop": 1, None: 1}, {"synop": 1}, table()) is None
    assert ratio({"synop": 1}, {"synop": 1, None: 1}, table()) is None
    assert ratio({"synop": 1}, {}, table()) is None
