"""A page that stands alone and can be read in the dark."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from matplotlib.figure import Figure

from snnkd_deploy.page import bullets, definitions, facts, figure, heading, lead, page, paragraph, table


def drawn() -> Figure:
    made = Figure(figsize=(2, 1))
    made.add_subplot().plot([0, 1], [1, 0])
    return made


def test_nothing_of_a_text_becomes_markup() -> None:
    made = page("a < b", [heading("<i>"), paragraph("x & y"), table(("<a>", "b"), [("<c>", "1")])])
    assert "<h1>a &lt; b</h1>" in made
    assert "<h2>&lt;i&gt;</h2>" in made
    assert "<p>x &amp; y</p>" in made
    assert '<th class="word">&lt;a&gt;</th><th>b</th>' in made
    assert '<td class="word">&lt;c&gt;</td><td>1</td>' in made


def test_a_page_is_well_formed_and_asks_for_nothing_from_outside() -> None:
    made = page("title", [heading("one"), paragraph("two", quiet=True), table(("a",), [("b",)])])
    body = made[made.index("<body>") : made.index("</html>")]
    assert [child.tag for child in ET.fromstring(body)] == ["h1", "h2", "p", "div"]
    assert "href=" not in made
    assert "src=" not in made


def test_terms_and_lists_are_escaped_and_definitions_are_one_click_away() -> None:
    assert lead("a < b") == '<p class="lead">a &lt; b</p>'
    assert bullets(["<x>", "y"]) == "<ul><li>&lt;x&gt;</li><li>y</li></ul>"
    assert facts([("a&b", "<c>")]) == "<dl><dt>a&amp;b</dt><dd>&lt;c&gt;</dd></dl>"
    assert definitions("<t>", [("a", "b")]) == (
        "<details><summary>&lt;t&gt;</summary><dl><dt>a</dt><dd>b</dd></dl></details>"
    )


def test_sums_and_words_are_told_apart_from_numbers() -> None:
    made = table(("a", "b", "c"), [("x", "y", "1"), ("sum", "", "2")], left=2, totals=1)
    assert '<tr><td class="word">x</td><td class="word">y</td><td>1</td></tr>' in made
    assert '<tr class="total"><td class="word">sum</td>' in made


def test_a_figure_is_drawn_inline_in_the_colours_of_the_page_and_always_the_same() -> None:
    made = figure(drawn(), "a caption & more")
    assert made.startswith("<figure><svg")
    assert made.endswith("<figcaption>a caption &amp; more</figcaption></figure>")
    assert "currentColor" in made
    assert "#000000" not in made
    assert made == figure(drawn(), "a caption & more")
