"""The report page: one file, escaped, described, and no wider than the screen."""

import base64
import html
import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from jaxseg.report import figures, page, tables

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
    tables.write_csv(folder / "bands.csv", rows)
    series = [figures.Series(label, X, 1 - X / 200, 0.9 - X / 200, 1.1 - X / 200) for label in ("M_ori", "M_crop")]
    figures.curves(folder / "bands.png", {"whole": series, "quadrants": series}, xlabel="x", ylabel="Dice")
    lead = page.Figure(folder / "bands.png", "Bands", f"Dice falls {HOSTILE}", "A caption.", folder / "bands.csv")
    wide = [{f"column {i}": f"text {i} {j}" for i in range(30)} for j in range(30)]
    page.write(
        folder / "out" / "report.html",
        title="The border shortcut",
        question="Do networks trained on whole images fail where the border of a crop cuts a lesion?",
        verdict="partly",
        answer="Within 16 of 256 px of the border the network trained on whole images reaches 0.52 [0.47, 0.57], the "
        "one trained on quadrants 0.83 [0.80, 0.86]: a gap of 0.31 [0.25, 0.37], against 0.02 [-0.01, 0.04] inside.",
        lead=lead,
        facts=[("gap at the border", "0.31 [0.25, 0.37]"), ("a label that is long", LONG)],
        sections=[
            page.Section(HOSTILE, [HOSTILE, "More."], [page.Figure(folder / "bands.png", "Again", "Twice")]),
            page.Section(
                "Tables",
                tables=[
                    page.Table("Scores", rows, "A note.", {"model": "Model", "dice": "Dice", "gap": "Gap"}),
                    page.Table("All", rows),
                    page.Table("Wide", wide),
                ],
            ),
        ],
        provenance=[("command", f"python launch/study.py --workdir={LONG}"), ("date", "2020-01-01")],
    )
    return folder / "out" / "report.html"


def test_text_is_escaped(report):
    reader = Reader(report.read_text("utf-8"))
    assert not reader.all("script")
    assert sum(HOSTILE in words for words in reader.words) == 4  # heading, paragraph, a cell in two tables
    assert reader.all("img")[0]["alt"] == f"Dice falls {HOSTILE}"


def test_the_file_stands_alone(report):
    text = report.read_text("utf-8")
    addresses = re.findall(r"""(?:src|href|action|poster|srcset)\s*=\s*["']([^"']*)""", text)
    assert len(addresses) == 4 and all(address.startswith("data:") for address in addresses)
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
    assert [link["download"] for link in links] == ["bands.csv"]
    assert base64.b64decode(links[0]["href"].split(",")[1]) == (report.parent.parent / "bands.csv").read_bytes()


def test_the_answer_comes_first_and_the_provenance_last(report):
    text = report.read_text("utf-8")
    parts = [text.index(part) for part in ("<h1>", 'class="verdict partly"', "<figure", "<section", "<details")]
    assert parts == sorted(parts) and text.count("<h1>") == 1 and text.count("<main>") == 1
    assert '<html lang="en">' in text and text.startswith("<!doctype html>")


def test_tables_are_set_as_numbers(report):
    reader = Reader(report.read_text("utf-8"))
    headers = [(h.get("scope"), h.get("class")) for h in reader.all("th")]
    assert headers[:3] == [("col", "sentence"), ("col", "number"), ("col", "number")]
    assert headers[3:5] == [("row", "sentence")] * 2
    assert len(reader.all("caption")) == 3
    words = [word.strip() for word in reader.words]
    assert "\N{MINUS SIGN}0.125" in words and "–" in words and "Gap" in words
    assert any("undefined" in word for word in words if word.startswith("A note."))


def test_what_is_incomplete_is_refused(report, tmp_path):
    folder = report.parent.parent
    rest = {"title": "t", "question": "q", "answer": "a", "facts": [], "sections": [], "provenance": []}
    good = page.Figure(folder / "bands.png", "Bands", "alt")
    with pytest.raises(ValueError, match="yes, partly, no, unclear"):
        page.write(tmp_path / "a.html", verdict="maybe", lead=good, **rest)
    with pytest.raises(ValueError, match="alternative text"):
        page.write(tmp_path / "a.html", verdict="no", lead=page.Figure(folder / "bands.png", "Bands", " "), **rest)
    with pytest.raises(ValueError, match="not a PNG"):
        page.write(tmp_path / "a.html", verdict="no", lead=page.Figure(folder / "bands.csv", "Bands", "alt"), **rest)
    page.write(tmp_path / "a.html", verdict="unclear", lead=good, **rest)
    Reader((tmp_path / "a.html").read_text("utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


PROBE = """<!doctype html><meta charset="utf-8"><body>{frames}<pre id="found"></pre><script>
addEventListener("load", () => {{
  const frames = [...document.querySelectorAll("iframe")];
  document.getElementById("found").textContent = JSON.stringify(frames.map((frame) => {{
    const page = frame.contentDocument, root = page.documentElement, image = page.querySelector(".top img");
    const out = [...page.querySelectorAll("body *")].filter((e) =>
      e.getBoundingClientRect().right > root.clientWidth + 1 && !e.parentElement.closest(".scroll"));
    return {{width: root.clientWidth, scroll: root.scrollWidth, lead: image.getBoundingClientRect().bottom,
             image: image.complete && image.naturalWidth, out: out.map((e) => e.outerHTML.slice(0, 80))}};
  }}));
}});
</script>"""


def test_no_screen_is_too_narrow(report, tmp_path):
    """In a browser, on a phone and on a laptop: nothing sticks out, and the plot is on the first screen."""
    chromium = shutil.which("chromium") or pytest.skip("chromium is not on the PATH")
    sizes = [(360, 740), (1280, 800)]
    source = html.escape(report.read_text("utf-8"))
    frames = "".join(f'<iframe srcdoc="{source}" style="border:0;width:{w}px;height:{h}px"></iframe>' for w, h in sizes)
    (tmp_path / "probe.html").write_text(PROBE.format(frames=frames), "utf-8")
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    flags += f" --disable-component-update --disable-sync --hide-scrollbars --user-data-dir={tmp_path / 'profile'}"
    run = subprocess.run(
        [chromium, *flags.split(), "--dump-dom", (tmp_path / "probe.html").as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    match = re.search(r'<pre id="found">(.*?)</pre>', run.stdout, re.S)
    assert match is not None and match[1], run.stderr
    found = json.loads(html.unescape(match[1]))
    for (width, height), page_ in zip(sizes, found, strict=True):
        assert page_["width"] == width and page_["scroll"] <= width and page_["out"] == []
        assert page_["image"] == 960 and page_["lead"] <= height
