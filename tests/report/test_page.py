"""The report page: one file, escaped, described, and no wider than the screen."""

import base64
import dataclasses
import hashlib
import html.parser
import re

import numpy as np
import pytest

from jaxseg import atomic
from jaxseg.metrics.intervals import Estimate
from jaxseg.report import estimates, figures, page
from jaxseg.results.table import Row, table

X = np.arange(8.0, 129.0, 8.0)
VOID = {"meta", "link", "img", "br", "hr", "input"}
HOSTILE = "<script>alert('a')</script> & \"b\""
LONG = "a/rather/long/path/without/any/space/" * 6


class Reader(html.parser.HTMLParser):
    """Collects the elements, checks that every one is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rows = [
        {"model": HOSTILE, "dice": "0.42 [0.37, 0.47]", "gap": -0.125, "n": np.int64(12), "convention": "word " * 30},
        {"model": "M_crop", "dice": "undefined", "gap": float("nan"), "n": 7, "convention": None},
    ]
    atomic.write_csv(folder / "bands.csv", rows)
    series = [figures.Series(label, X, 1 - X / 200, 0.9 - X / 200, 1.1 - X / 200) for label in ("M_ori", "M_crop")]
    figures.curves(folder / "bands.png", {"whole": series, "quadrants": series}, xlabel="x", ylabel="Dice")
    lead = page.Figure(folder / "bands.png", "Bands", f"Dice falls {HOSTILE}", "A caption.", folder / "bands.csv")
    wide = [{f"column {i}": f"text {i} {j}" for i in range(30)} for j in range(30)]
    page.write(
        folder / "out" / "report.html",
        page.Page(
            title="The border shortcut",
            question="Do networks trained on whole images fail where the border of a crop cuts a lesion?",
            verdict="partly",
            answer="Within 16 of 256 px of the border the network trained on whole images reaches 0.52 [0.47, 0.57], "
            "the one trained on quadrants 0.83 [0.80, 0.86]: a gap of 0.31 [0.25, 0.37], against 0.02 [-0.01, 0.04] "
            "inside.",
            lead=lead,
            facts=[("gap at the border", "0.31 [0.25, 0.37]"), ("a label that is long", LONG)],
            sections=[
                page.Section(
                    HOSTILE,
                    [HOSTILE, "More."],
                    [page.Figure(folder / "bands.png", "Again", "Twice", "", folder / "bands.csv")],
                ),
                page.Section(
                    "Tables",
                    tables=[
                        page.Table("Scores", rows, "A note.", {"model": "Model", "dice": "Dice", "gap": "Gap"}),
                        page.Table("All", rows),
                        page.Table("Wide", wide),
                    ],
                ),
            ],
        ),
        {"command": f"python launch/study.py --workdir={LONG}", "date": "2020-01-01"},
    )
    return folder / "out" / "report.html"


def test_text_is_escaped(report):
    reader = Reader(report.read_text("utf-8"))
    (policy,) = (m["content"] for m in reader.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    (script,) = re.findall(r"<script>(.*?)</script>", report.read_text("utf-8"), re.S)  # the page's own alone
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert sum(HOSTILE in words for words in reader.words) == 4  # heading, paragraph, a cell in two tables
    assert reader.all("img")[0]["alt"] == f"Dice falls {HOSTILE}"


def test_the_file_stands_alone(report):
    text = report.read_text("utf-8")
    addresses = re.findall(r"""(?:src|href|action|poster|srcset)\s*=\s*["']([^"']*)""", text)
    assert len(addresses) == 5 and all(address.startswith("data:") for address in addresses)
    assert not re.search(r"https?://|@import|url\(", re.sub(r"base64,[\w+/=]*", "", text))


def test_figures_have_alternative_text_size_and_numbers(report):
    reader = Reader(report.read_text("utf-8"))
    images, links = reader.all("img"), reader.all("a")
    assert len(images) == len(reader.all("figure")) == len(reader.all("figcaption")) == 2
    png = (report.parent.parent / "bands.png").read_bytes()
    for image in images:
        assert image["alt"].strip()
        assert base64.b64decode(image["src"].split(",")[1]) == png
        assert (image["width"], image["height"]) == ("960", "552")
    assert [link["download"] for link in links] == ["bands.csv"] * 2
    for link in links:
        assert base64.b64decode(link["href"].split(",")[1]) == (report.parent.parent / "bands.csv").read_bytes()


def test_the_answer_comes_first_and_the_provenance_last(report):
    text = report.read_text("utf-8")
    parts = [text.index(part) for part in ("<h1>", 'class="verdict partly"', "<figure", "<section", "<details")]
    assert parts == sorted(parts) and text.count("<h1>") == 1 and text.count("<main>") == 1
    assert '<html lang="en">' in text and text.startswith("<!doctype html>")


def test_tables_are_set_as_numbers(report):
    reader = Reader(report.read_text("utf-8"))
    headers = [(h.get("scope"), h.get("class")) for h in reader.all("th")]
    assert headers[:3] == [("col", "sentence"), ("col", "number first"), ("col", "number")]
    assert headers[3:5] == [("row", "sentence")] * 2
    assert len(reader.all("caption")) == 3
    words = [word.strip() for word in reader.words]
    assert "\N{MINUS SIGN}0.125" in words and "–" in words and "Gap" in words
    assert any("undefined" in word for word in words if word.startswith("A note."))


@pytest.mark.parametrize(
    ("verdict", "changes", "words"),
    [
        ("maybe", {}, "yes, partly, no, unclear"),
        ("no", {"alt": " "}, "alternative text"),
        ("no", {"path": "bands.csv"}, "not a PNG"),
        ("no", {"data": "empty.csv"}, "empty.csv has no row"),
    ],
)
def test_what_is_incomplete_is_refused(report, tmp_path, verdict, changes, words):
    folder = report.parent.parent
    atomic.write_csv(folder / "empty.csv", [])
    changes = {name: value if name == "alt" else folder / value for name, value in changes.items()}
    figure = page.Figure(folder / "bands.png", "Bands", "alt", "", folder / "bands.csv")
    rest = {"title": "t", "question": "q", "answer": "a", "facts": [], "sections": []}
    with pytest.raises(ValueError, match=words):
        page.write(
            tmp_path / "a.html", page.Page(verdict=verdict, lead=dataclasses.replace(figure, **changes), **rest), {}
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bad", "looks"),
    [("no", ("good", "partly", "bad", "unclear")), ("yes", ("bad", "partly", "good", "unclear"))],
)
def test_the_badge_has_the_colour_of_what_the_answer_means(tmp_path, bad, looks):
    rest = {"title": "t", "question": "q", "answer": "a", "lead": None, "facts": [], "sections": [], "bad": bad}
    for verdict, look in zip(page.VERDICTS, looks, strict=True):
        page.write(tmp_path / "a.html", page.Page(verdict=verdict, **rest), {})
        text = (tmp_path / "a.html").read_text("utf-8")
        assert (
            f'<strong class="verdict {look}">{verdict}</strong>' in text
            and f".{look} {{ background: var(--{look})" in text
        )


def test_a_page_may_have_no_section(report, tmp_path):
    folder = report.parent.parent
    atomic.write_csv(folder / "one.csv", [{"dice": 0.5}])  # a figure of one number is one
    lead = page.Figure(folder / "bands.png", "Bands", "alt", "", folder / "one.csv")
    page.write(
        tmp_path / "a.html",
        page.Page(title="t", question="q", verdict="unclear", answer="a", lead=lead, facts=[], sections=[]),
        {},
    )
    Reader((tmp_path / "a.html").read_text("utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    rest = {"title": "t", "question": "q", "verdict": "unclear", "answer": "a", "facts": [], "sections": []}
    page.write(tmp_path / "b.html", page.Page(lead=None, **rest), {})
    assert "<figure" not in (tmp_path / "b.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.5, None], "number first"),
        (["0.42 [-0.01, 0.47]", "undefined"], "number first"),
        (["0.254 ... 0.284"], "number first"),
        (["0.82 ± 0.06", None], "number first"),
        (["7 %", "12 %"], "number first"),
        (["0.42 or so"], ""),
        (["16 of 20"], ""),
        ([None], ""),
    ],
)
def test_which_columns_are_numbers(report, tmp_path, values, kind):
    """They stand right and are sorted as numbers, the first beside a row's name; a hyphen there is a minus sign."""
    folder = report.parent.parent
    lead = page.Figure(folder / "bands.png", "Bands", "alt", "", folder / "bands.csv")
    rows = [{"case": "a-1", "value": value} for value in values]
    page.write(
        tmp_path / "a.html",
        page.Page(
            title="t",
            question="q",
            verdict="no",
            answer="a",
            lead=lead,
            facts=[],
            sections=[page.Section("s", tables=[page.Table("t", rows)])],
        ),
        {},
    )
    reader = Reader((tmp_path / "a.html").read_text("utf-8"))
    assert [cell.get("class", "") for cell in reader.all("td")] == [kind] * len(values)
    assert "a-1" in reader.words and ("0.42 [\N{MINUS SIGN}0.01, 0.47]" in reader.words) == (
        values[0] == "0.42 [-0.01, 0.47]"
    )


@pytest.fixture
def made(report, tmp_path):
    """`(tables, facts, provenance) -> reader of the page`."""

    def make(*tables, facts=(), provenance=None):
        folder = report.parent.parent
        lead = page.Figure(folder / "bands.png", "Bands", "alt", "", folder / "bands.csv")
        sections = [page.Section("s", tables=tables)]
        rest = {"title": "t", "question": "q", "verdict": "no", "answer": "a", "lead": lead}
        page.write(tmp_path / "a.html", page.Page(**rest, facts=facts, sections=sections), provenance or {})
        return Reader((tmp_path / "a.html").read_text("utf-8"))

    return make


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([0.5, 0.12345], ["0.500", "0.123"]),
        ([1.0, 0.12345], ["1.000", "0.123"]),
        ([1.5, -0.12345], ["1.50", "−0.12"]),
        ([10.0, 2.0], ["10.00", "2.00"]),
        ([99.94, 2.06], ["99.9", "2.1"]),
        ([123.4, 2.6], ["123", "3"]),
        ([0.0123, 0.1e-3], ["0.0123", "0.0001"]),
        ([0.2e-7, 0.1e-6], ["0.000000", "0.000000"]),
        ([0.0, float("nan")], ["0.000", "–"]),
        ([-0.0004, 0.5], ["0.000", "0.500"]),
        ([float("inf"), 25.0], ["inf", "25.0"]),
        ([True, False, None, 3], ["yes", "no", "–", "3"]),
    ],
)
def test_floats_of_a_column_have_three_digits_of_the_largest(made, values, cells):
    reader = made(page.Table("t", [{"case": "c", "value": value} for value in values]))
    words = [word.strip() for word in reader.words if word.strip()]
    start = words.index("value") + 1
    assert words[start : start + 2 * len(cells)][1::2] == cells


def test_a_table_is_long_from_26_rows_on(made):
    for rows, classes in ((25, "scroll"), (26, "scroll long")):
        reader = made(page.Table("t", [{"case": f"c{i}"} for i in range(rows)]))
        assert [box["class"] for box in reader.all("div") if box.get("role") == "region"] == [classes]


@pytest.mark.parametrize("value", ["0.12 [0.10, 0.15]", "word " + 12 * "w"])
def test_a_table_is_wide_beyond_110_characters_that_cannot_be_broken(made, value):
    """A column takes its longest word, of numbers the whole number, and a gap of 2."""
    columns = {"0.12 [0.10, 0.15]": 5, "word wwwwwwwwwwww": 7}[value]
    taken = columns * (max(len(word) for word in ([value] if value[0] == "0" else value.split())) + 2)
    for rest in (108 - taken, 109 - taken):
        row = {"h" * rest: "a"} | {f"c{i}": value for i in range(columns)}
        reader = made(page.Table("t", [row]))
        (box,) = (box["class"] for box in reader.all("div") if box.get("role") == "region")
        assert (box == "scroll wide") == (rest + taken + 2 > 110)


def test_sentences_are_longer_than_30_letters(made):
    reader = made(page.Table("t", [{"case": "c", "short": "s" * 30, "long": "l" * 31}]))
    assert [cell.get("class", "") for cell in reader.all("td")] == ["", "sentence"]


def test_facts_and_provenance_in_words(made):
    facts = [("gap", "-0.10 [-0.20, 0.01]"), ("share", "7 %"), ("name", "a-1")]
    provenance = {"trained_with": {"jax": "1", "flax": 2}, "dates": ["a", "b"], "text": "t"}
    provenance["config"] = {"seed": 1, "data": {"name": "set", "options": {"size": [], "low": 0.5}}, "model": {"a": 2}}
    reader = made(facts=facts, provenance=provenance)
    words = [word.strip() for word in reader.words if word.strip()]
    assert words[words.index("gap") :][:6] == ["gap", "−0.10 [−0.20, 0.01]", "share", "7 %", "name", "a-1"]
    assert [one.get("class", "") for one in reader.all("dd")] == ["whole", "whole", *[""] * 7]
    assert words[words.index("trained with") :][:6] == ["trained with", "jax 1, flax 2", "dates", "a; b", "text", "t"]
    told = ["config", "seed 1", "config: data", "name set, options (size none, low 0.5)", "config: model", "a 2"]
    assert words[words.index("config") :][:6] == told


def test_columns_are_chosen_ordered_and_named(made):
    rows = [{"a": 1, "b": 2.0}, {"a": 3, "c": None}]
    words = [word.strip() for word in made(page.Table("t", rows, "", {"c": "C", "a": "A"})).words if word.strip()]
    start = words.index("C")
    assert words[start : start + 6] == ["C", "A", "–", "1", "–", "3"] and "2.0" not in words


def test_an_estimate_table_has_keys_estimate_counts_and_conventions_once():
    what = "mean. of cases; after A et al. 2022"
    row = lambda key, mean, how="bootstrap": Row(
        {"layer": key}, Estimate(mean, mean - 0.1, mean + 0.1, 9, 2, 7), what, how, {"std": 0.5}
    )
    rows = table([row(0.25, 0.5), row(2, 0.7, "none")])
    made = estimates.table("t", rows, {"layer": "Layer"}, further={"std": "s"}, counts=("n", "patients"))
    assert made.rows == [
        {"layer": "0.25", "estimate": "0.50 [0.40, 0.60]", "std": 0.5, "n": 9, "patients": 7},
        {"layer": 2, "estimate": "0.70", "std": 0.5, "n": 9, "patients": 7},
    ]
    assert made.note == "Mean. Of cases; after A et al. 2022. Interval: bootstrap."
    assert list(made.columns.values()) == ["Layer", "mean [95 % interval]", "s", "n", "patients"]
