"""Report pages as a reader sees them: in Chromium, on a phone and on a laptop, in light and dark, and on paper.

The reports in the folders of `JAXSEG_REPORTS` are looked at in the same way.
"""

import base64
import contextlib
import re
import shutil

import numpy as np
import pytest

from jaxseg import atomic
from jaxseg.report import figures, page

SCREENS = ((360, 740), (1280, 800))
PAPER = (673, 980)  # what 16 and 18 mm of margin leave of A4, in CSS pixels
SCORES = [
    "0.42 [0.37, 0.47]",
    "-0.05 [-0.10, 0.01]",
    "undefined",
    "0.9 [0.8, 1.0]",
    "0.10 [0.05, 0.20]",
    "-1.525 [-2.025, -1.025]",  # as wide as numbers are
]
BY_SCORE = ["f", "b", "e", "a", "d", "c"]  # upwards; what is undefined comes last
NAMES = ["layer 10", "Zebra", "layer 9", None, "apple", "layer 1"]
BY_NAME = ["e", "f", "c", "a", "b", "d"]

# What stands out of the page to the right; what scrolls in a box of its own does not count, unless on paper.
STICKING_OUT = """(onPaper) => {
  const edge = document.documentElement.clientWidth + 1;
  return [...document.querySelectorAll("body *")]
    .filter((e) => e.getBoundingClientRect().right > edge && (onPaper || !e.parentElement.closest(".scroll")))
    .map((e) => e.outerHTML.slice(0, 100));
}"""
# Pictures that are not there: undecoded, without size, hidden, or of another shape than the file.
UNDRAWN = """() => [...document.images].filter((image) => {
  const box = image.getBoundingClientRect();
  const drawn = image.complete && image.naturalWidth > 0 && image.checkVisibility();
  const stretched = Math.abs(box.height / box.width - image.naturalHeight / image.naturalWidth) > 0.01;
  return !drawn || box.width < 100 || stretched;
}).map((image) => image.alt)"""
# Words whose colour is too near to that of what lies behind them (WCAG 2.2, contrast 4.5).
FAINT = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = channels(colour).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    const colour = getComputedStyle(e).backgroundColor;
    return channels(colour)[3] === 0 ? behind(e.parentElement) : colour;
  };
  const words = (e) => [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
  return [...document.querySelectorAll("main *")].filter((e) => words(e) && e.checkVisibility()).filter((e) => {
    const [low, high] = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05) < 4.5;
  }).map((e) => e.outerHTML.slice(0, 100));
}"""
# Tables that are wider than their box.
TOO_WIDE = """() => [...document.querySelectorAll(".scroll")]
  .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.getAttribute("aria-label"))"""
# First numbers of rows that lie beside the screen in part.
UNSEEN_NUMBERS = """() => [...document.querySelectorAll("td.first")].filter((e) => {
  const box = e.getBoundingClientRect();
  const beside = box.left < 0 || box.right > document.documentElement.clientWidth;
  return beside || box.width === 0 || e.scrollWidth > e.clientWidth + 1;
}).map((e) => e.outerHTML)"""
# Boxes whose content is cut off, and words that nothing shows.
CUT_OFF = """() => [...document.querySelectorAll(".scroll")]
  .filter((e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
  .map((e) => e.getAttribute("aria-label"))"""


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium; the tests are skipped where there is none."""
    path = shutil.which("chromium") or pytest.skip("needs Debian's chromium")
    from playwright.sync_api import sync_playwright  # not before: importing it takes as long as a test

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page with every element: figures of two shapes, tables that are short, long and wide, words without a space."""
    folder = tmp_path_factory.mktemp("page")
    x = np.arange(8.0, 129.0, 8.0)
    series = [figures.Series(label, x, 1 - x / 200, 0.9 - x / 200, 1.1 - x / 200) for label in ("M_ori", "M_crop")]
    figures.curves(folder / "wide.png", {"whole": series, "quadrants": series}, xlabel="x", ylabel="Dice")
    figures.dots(folder / "tall.png", [(f"row {i}", "", 0.1 * i, 0.0, 1.0) for i in range(12)], xlabel="Dice")
    atomic.write_csv(folder / "bands.csv", [{"outer edge": d, "Dice, µ": 1 - d / 200} for d in x])
    figure = lambda name, title: page.Figure(
        folder / f"{name}.png", title, f"Lines of {title}", "", folder / "bands.csv"
    )
    rows = [
        {"case": case, "score": score, "name": name, "mean": mean}
        for case, score, name, mean in zip("abcdef", SCORES, NAMES, [3.0, np.nan, 20.0, -100.0, 0.5, 0.0], strict=True)
    ]
    estimates = [
        {"": f"row {j}", **{f"estimate {i}": f"0.{j}2 [0.{j}0, 0.{j}5]" for i in range(12)}} for j in range(10)
    ]
    many = [{f"column {i}": f"text_{i}_{j}" for i in range(30)} for j in range(30)]
    full = [
        {"what": "a sentence of some length " * 2, **{f"m{i}": "0.12 [0.10, 0.15]" for i in range(4)}, "n": 123}
    ] * 3
    page.write(
        folder / "report.html",
        page.Page(
            title="A study (tiny)",
            question="Is every element of a page shown on every screen, and on paper?",
            verdict="partly",
            answer="The gap is 0.31 [0.25, 0.37], against 0.02 [-0.01, 0.04] inside.",
            lead=figure("tall", "Dice by distance"),
            facts=[("gap at the border", "0.31 [0.25, 0.37]"), ("folder", "a/path/without/any/space/" * 6)],
            sections=[
                page.Section("Figures", ["Words. " * 60], [figure("wide", "Again"), figure("tall", "A third time")]),
                page.Section(
                    "Tables",
                    [],
                    [],
                    [
                        page.Table("Sorted", rows, "A note."),
                        page.Table("Two rows", rows[:2]),
                        page.Table("Estimates", estimates),
                        page.Table(
                            "Many columns, and a title that is far longer than a phone is wide, as some are", many
                        ),
                        page.Table("As wide as paper", full),
                    ],
                ),
            ],
        ),
        {"command": "python -m launch.study --workdir=" + "a/rather/long/path/" * 8, "date": "2020-01-01"},
    )
    return folder / "report.html"


@pytest.fixture
def any_report(request, report):
    return request.param or report


@pytest.fixture
def visit(browser):
    """`visit(path, **options of the context) -> page`; whatever the browser complained of in between fails the test."""
    complaints = []
    with contextlib.ExitStack() as opened:

        def open_(path, **options):
            context = opened.enter_context(contextlib.closing(browser.new_context(**options)))
            shown = context.new_page()
            shown.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
            shown.on("pageerror", lambda error: complaints.append(str(error)))
            shown.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:100]}"))
            shown.on(
                "request",
                lambda request: (
                    None if request.url.startswith(("file:", "data:")) else complaints.append(f"asks for {request.url}")
                ),
            )
            shown.goto(path.as_uri())
            return shown

        yield open_
    assert complaints == []


@pytest.mark.parametrize("screen", SCREENS, ids=["phone", "laptop"])
def test_everything_is_drawn_and_nothing_is_wider_than_the_screen(visit, any_report, screen):
    width, height = screen
    shown = visit(any_report, viewport={"width": width, "height": height})
    assert shown.locator("img").count() == shown.locator("figure").count() >= 1
    for scheme in ("light", "dark"):
        shown.emulate_media(color_scheme=scheme)
        assert shown.evaluate(UNDRAWN) == []
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.evaluate(STICKING_OUT, False) == []
        assert shown.evaluate(FAINT) == []
        lead = shown.locator(".top img").bounding_box()
        assert lead["y"] + lead["height"] <= height  # the answer and its plot are on the first screen
        dark = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", dark))) < 64) == (scheme == "dark")


def test_what_looks_for_faults_finds_them(visit, report):
    """A picture that is cut, a box that sticks out, gray on gray: the checks above can fail."""
    shown = visit(report, viewport={"width": 360, "height": 740})
    shown.add_style_tag(content=".note { color: #999 } .plate img { height: 50px !important } h1 { width: 400px; }")
    assert len(shown.evaluate(UNDRAWN)) == 3
    assert any(text.startswith("<h1") for text in shown.evaluate(STICKING_OUT, False))
    assert all("note" in text for text in shown.evaluate(FAINT)) and shown.evaluate(FAINT)
    shown.set_viewport_size({"width": PAPER[0], "height": PAPER[1]})
    assert any("Many columns" in title for title in shown.evaluate(CUT_OFF))  # as long as it is not on paper
    shown.set_viewport_size({"width": 900, "height": 740})
    assert any("Many columns" in title for title in shown.evaluate(TOO_WIDE))
    shown.set_viewport_size({"width": 320, "height": 740})
    shown.add_style_tag(content="td.first { position: relative; left: 200px }")
    assert len(shown.evaluate(UNSEEN_NUMBERS)) > 5


@pytest.mark.parametrize("width", [320, 390, 768])
def test_on_a_narrow_screen_every_number_is_seen_without_scrolling(visit, any_report, width):
    """No table is wider than its box; a row's first number is beside its name, the others say what they are."""
    shown = visit(any_report, viewport={"width": width, "height": 740})
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate(TOO_WIDE) == []
    assert shown.evaluate(UNSEEN_NUMBERS) == []


def test_a_row_on_a_phone_says_what_its_numbers_are(visit, report):
    shown = visit(report, viewport={"width": 390, "height": 740})
    row = shown.get_by_role("region", name="Estimates").locator("tbody tr").nth(3)
    name, first, second = (row.locator("th, td").nth(i) for i in range(3))
    assert first.bounding_box()["y"] == pytest.approx(name.bounding_box()["y"], abs=2)
    assert first.bounding_box()["x"] > name.bounding_box()["x"] and first.inner_text() == "0.32 [0.30, 0.35]"
    before = "e => getComputedStyle(e, '::before').content"
    assert (first.evaluate(before), second.evaluate("e => e.dataset.label")) == ("none", "estimate 1")
    assert second.evaluate(before) != "none"
    shown.set_viewport_size({"width": 1280, "height": 740})
    assert second.evaluate(before) == "none"  # there is a header above it


def test_a_wide_table_scrolls_in_its_box_and_keeps_its_first_column(visit, report):
    shown = visit(report, viewport={"width": 800, "height": 740})
    box = shown.get_by_role("region", name="Many columns")
    first = box.locator("tbody th").first
    before = first.bounding_box()
    box.focus()
    box.evaluate("e => e.scrollTo(500, 0)")
    assert box.evaluate("e => e.scrollLeft") == 500
    assert first.bounding_box()["x"] == pytest.approx(before["x"], abs=1)
    assert first.bounding_box()["width"] < 800 / 2
    box.evaluate("e => e.scrollTo(500, 300)")  # and a long one its header
    header = box.locator("thead th").first.bounding_box()
    assert (header["x"], header["y"]) == pytest.approx((before["x"], box.bounding_box()["y"]), abs=2)


def first_column(shown, title):
    return shown.get_by_role("region", name=title).locator("tbody th").all_inner_texts()


def test_tables_are_sorted_by_pressing_a_header(visit, report):
    """Numbers by their estimates, text as people count; what is undefined stays last; the third press undoes it."""
    shown = visit(report)
    table = shown.get_by_role("region", name="Sorted")
    header = lambda name: table.get_by_role("columnheader", name=name)
    button = lambda name: header(name).get_by_role("button")
    states = []
    for expected in (BY_SCORE, ["d", "a", "e", "b", "f", "c"], list("abcdef")):
        button("score").click()
        assert first_column(shown, "Sorted") == expected
        states.append(header("score").get_attribute("aria-sort"))
    assert states == ["ascending", "descending", None]
    button("name").click()
    assert first_column(shown, "Sorted") == BY_NAME
    button("mean").press("Enter")
    assert first_column(shown, "Sorted") == ["d", "f", "e", "a", "c", "b"]
    assert header("name").get_attribute("aria-sort") is None
    button("mean").press("Space")
    assert first_column(shown, "Sorted") == ["c", "a", "e", "f", "d", "b"]
    assert shown.evaluate("document.activeElement.textContent") == "mean"
    cells = table.locator("tbody tr").first.locator("th, td").all_inner_texts()
    assert cells == ["c", "undefined", "layer 9", "20.0"]  # rows stay whole
    shown.keyboard.press("Shift+Tab")
    assert shown.evaluate("document.activeElement.textContent") == "name"
    assert shown.get_by_role("region", name="Two rows").get_by_role("button").count() == 0
    assert all(name.strip() for name in shown.locator("th button").all_inner_texts())  # a blank header has none


def test_the_page_needs_no_script(visit, any_report):
    shown = visit(any_report, java_script_enabled=False)
    assert shown.get_by_role("button").count() == 0
    assert shown.locator("figure").count() == shown.locator("img[alt]").count() >= 1


def test_the_policy_lets_no_other_script_run(browser, report, tmp_path):
    """The page allows its own script by its checksum: text that was not escaped could not run one."""
    injected = report.read_text("utf-8").replace("</main>", "</main><script>document.title = 'taken'</script>")
    (tmp_path / "injected.html").write_text(injected, "utf-8")
    with contextlib.closing(browser.new_page()) as shown:
        refused = []
        shown.on("console", lambda message: refused.append(message.text))
        shown.goto((tmp_path / "injected.html").as_uri())
        assert shown.title() == "A study (tiny)" and any("Content Security Policy" in text for text in refused)


def test_every_figure_gives_its_numbers(visit, any_report, tmp_path):
    """Pressing a link saves the file that is embedded, under its name; tried on a few, as Chromium stops at ten."""
    shown = visit(any_report)
    links = shown.locator("figure a[download]")
    assert links.count() == shown.locator("figure").count()
    embedded = [base64.b64decode(link.get_attribute("href").split(",")[1]) for link in links.all()]
    assert all(len(table.decode("utf-8").splitlines()) > 1 for table in embedded)
    for i in range(min(links.count(), 3)):
        with shown.expect_download() as download:
            links.nth(i).click()
        download.value.save_as(tmp_path / "saved.csv")
        assert download.value.suggested_filename.endswith(".csv")
        assert (tmp_path / "saved.csv").read_bytes() == embedded[i]
    names = [link.inner_text() for link in links.all()]
    assert len(set(shown.locator("figure a[download]").all_text_contents())) == len(names)  # told apart by ear


def test_paper_has_everything(visit, any_report):
    """No box is cut, how it was made is unfolded, black on white whatever the screen was."""
    shown = visit(any_report, viewport={"width": PAPER[0], "height": PAPER[1]})
    for scheme in ("light", "dark"):
        shown.emulate_media(media="print", color_scheme=scheme)
        assert shown.evaluate(UNDRAWN) == []
        assert shown.evaluate(STICKING_OUT, True) == []
        assert shown.evaluate(CUT_OFF) == []
        assert shown.evaluate(FAINT) == []
        assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    values = shown.locator("details dd")
    assert values.count() >= 1 and all(value.bounding_box()["height"] > 0 for value in values.all())
    assert shown.pdf(prefer_css_page_size=True).startswith(b"%PDF")
