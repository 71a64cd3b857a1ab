"""The report in a real browser, opened from disk: filters, sorting, paging, light and dark, two widths, no network."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pages import HOSTILE, made_up_pool, page_of

from pipelines.report.blocks import Section, table_of
from pipelines.report.rendering import render

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
DESKTOP, PHONE = (1280, 900), (390, 844)
MANY, SHOWN = 300_000, 20_000
MANY_TEXTS = 50

# Every visible text's contrast with what lies behind it, (ratio, needed by AA, text). A canvas knows any colour's RGB.
CONTRASTS = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
    .reduce((sum, v, place) => sum + v * [.2126, .7152, .0722][place], 0);
  const found = [];
  for (const each of document.querySelectorAll("body *")) {
    const text = [...each.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
    if (!text || !each.checkVisibility() || each.closest("script, style, .skip, .unseen, :disabled, option")) continue;
    const style = getComputedStyle(each), backs = [];
    for (let up = each; up; up = up.parentElement) backs.unshift(getComputedStyle(up).backgroundColor);
    const back = paint(backs), ink = each.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [dim, bright] = [light(back), light(paint([...backs, ink]))].sort((a, b) => a - b);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    found.push([(bright + .05) / (dim + .05), large ? 3 : 4.5, text.slice(0, 40)]);
  }
  return found;
}"""

# Controls and landmarks that a screen reader could not name.
NAMELESS = """() => [...document.querySelectorAll("button, select, input, summary, nav, [role=region], [role=img]")]
  .filter((each) => each.checkVisibility())
  .filter((each) => ![each.ariaLabel, each.labels?.[0]?.textContent, each.textContent].some((words) => words?.trim()))
  .map((each) => each.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium with an empty profile."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on PATH")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as tools:
        opened = tools.chromium.launch(executable_path=found, headless=True, args=FLAGS)
        yield opened
        opened.close()


class Visit:
    """A page that was opened from disk, and all that it asked for and complained about."""

    def __init__(self, browser: Any, file: Path, *, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
        width, height = size
        view = {"width": width, "height": height}
        self.context = browser.new_context(viewport=view, color_scheme=scheme, reduced_motion="reduce")
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()

    def rows(self) -> "Visit":
        """The part with the rows, opened by its link."""
        self.page.get_by_role("link", name="Rows", exact=True).click()
        self.page.wait_for_selector("#rows-table tbody tr")
        return self

    def column(self, name: str) -> list[str]:
        """The cells of one column of the page of rows shown."""
        cells = self.page.query_selector_all(f'#rows-table tbody [data-label="{name}"]')
        return [cell.inner_text() for cell in cells]

    def status(self) -> str:
        return str(self.page.inner_text("#rows-status"))

    def choose(self, name: str, value: str) -> None:
        self.page.select_option(f'#filters [name="{name}"]', value)


@pytest.fixture(scope="module")
def report(finished_run: Path) -> Path:
    return finished_run / "report.html"


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300,000 rows of one task, of which the page takes 20,000, and 400 of another."""
    file = tmp_path_factory.mktemp("big") / "big.html"
    pools = made_up_pool(MANY), made_up_pool(400, task="QI", seed=1)
    file.write_text(render(page_of(*pools, n_rows=SHOWN)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with ids that are text, in languages that browsers call something else or nothing, one right to left."""
    pool = made_up_pool(400)
    rows = pool.rows.assign(
        id=[f"Row-A{number}" for number in range(400)], language=["vn", "ar", "unk", "nobody knows"] * 100
    )
    rows.loc[rows["language"] == "ar", "query"] = "\u062d\u0630\u0627\u0621"
    rows.loc[rows["language"] == "ar", "target"] = "shoes"
    file = tmp_path_factory.mktemp("strange") / "strange.html"
    file.write_text(render(page_of(replace(pool, rows=rows), n_rows=400)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a table of figures that a phone is too narrow for, one that it is not, and one of sentences."""
    figures = pd.DataFrame({"model": [45 * "m"], **{f"figure {number}": [0.5] for number in range(9)}})
    small = pd.DataFrame({"model": ["a"], "f1": [0.5]})
    said = [["a point", "warning", 12 * "found in the files ", 12 * "do this and that "]]
    sentences = table_of(
        pd.DataFrame(said, columns=["point", "verdict", "found", "advice"]), "Verdicts", style="stacked"
    )
    section = Section("words", "Words", "", (table_of(figures, "Wide"), table_of(small, "Small"), sentences))
    page = page_of(made_up_pool(50), n_rows=50)
    file = tmp_path_factory.mktemp("wide") / "wide.html"
    file.write_text(render(replace(page, tasks={"QC": (section,)})), encoding="utf-8")
    return file


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_part_fits_is_readable_and_asks_for_nothing(
    browser: Any, report: Path, size: tuple[int, int], scheme: str
) -> None:
    with Visit(browser, report, size=size, scheme=scheme) as visit:
        for part in ("QI", "Rows", "Time and memory"):
            visit.page.get_by_role("link", name=part, exact=True).click()
            if part == "Rows":
                visit.page.wait_for_selector("#rows-table tbody tr")
            visit.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0], part
            contrasts = visit.page.evaluate(CONTRASTS)
            assert len(contrasts) > MANY_TEXTS
            assert not [each for each in contrasts if each[0] < each[1]], part
            assert not visit.page.evaluate(NAMELESS), part
        assert visit.requests == [report.as_uri()]
        assert not visit.complaints


def test_one_part_is_shown_at_a_time_and_going_back_works(browser: Any, report: Path) -> None:
    with Visit(browser, report) as visit:
        visible = "() => [...document.querySelectorAll('.panel')].filter((p) => !p.hidden).map((p) => p.id)"
        assert visit.page.evaluate(visible) == ["QI"]
        visit.rows()
        assert visit.page.evaluate(visible) == ["rows"]
        assert visit.page.get_attribute(".parts [aria-current]", "href") == "#rows"
        visit.page.go_back()
        visit.page.wait_for_selector("#QI:not([hidden])")
        visit.page.get_by_role("link", name="Calibration").click()
        assert visit.page.evaluate("document.querySelector('#QI-calibration').getBoundingClientRect().top") < 100


def test_headings_step_down_by_one_and_landmarks_are_there(browser: Any, report: Path) -> None:
    with Visit(browser, report) as visit:
        levels = visit.page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))")
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        for landmark in ("header", "main", "nav[aria-label]", "[role=search]", "[role=status]"):
            assert visit.page.query_selector(landmark), landmark
        assert visit.page.evaluate("[...document.querySelectorAll('table')].every((t) => t.caption)")
        assert visit.page.evaluate("[...document.querySelectorAll('th')].every((t) => t.scope)")
        assert visit.page.get_attribute("html", "lang") == "en"


def test_filters_sort_and_pages_by_mouse(browser: Any, big: Path) -> None:
    with Visit(browser, big) as visit:
        visit.rows()
        assert set(visit.column("outcome")) <= {"false positive", "false negative"}
        assert f"out of {SHOWN:,} in this file" in visit.status()
        visit.choose("outcome", "fp")
        visit.choose("language", "fr")
        visit.choose("fold", "1")
        assert set(visit.column("outcome")) == {"false positive"}
        assert set(visit.column("language")) == {"fr"}
        assert set(visit.column("fold")) == {"1"}
        visit.choose("label", "1")
        assert visit.status().startswith("No row passes")
        visit.page.click("text=Reset")
        visit.page.wait_for_selector("#rows-table tbody tr")
        visit.choose("outcome", "")
        visit.page.click("#rows-table th[data-key=score-0] button")
        falling = [float(each) for each in visit.column("lexical")]
        assert falling == sorted(falling, reverse=True)
        assert visit.page.get_attribute("th[data-key=score-0]", "aria-sort") == "descending"
        visit.page.click("#rows-table th[data-key=score-0] button")
        rising = [float(each) for each in visit.column("lexical")]
        assert rising == sorted(rising) != falling
        visit.page.click("text=Next")
        assert visit.page.inner_text("#rows-page") == "Page 2 of 800"
        assert float(visit.column("lexical")[0]) >= rising[-1]
        visit.page.click("text=Last")
        assert visit.page.is_disabled("text=Next")
        assert visit.page.evaluate("document.querySelectorAll('#rows-table tbody tr').length") == 25
        visit.choose("task", "1")
        assert "out of 400 in this file" in visit.status()
        assert not visit.complaints


def test_rows_by_keyboard_alone(browser: Any, report: Path) -> None:
    with Visit(browser, report) as visit:
        page = visit.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        focused = "document.activeElement.textContent.trim()"
        while page.evaluate(focused) != "Rows":
            page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        page.keyboard.press("Enter")
        page.wait_for_selector("#rows-table tbody tr")
        while page.evaluate("document.activeElement.name") != "outcome":
            page.keyboard.press("Tab")
        page.keyboard.type("all rows")
        page.keyboard.press("Tab")
        assert "out of" in visit.status()
        everything = visit.status()
        while page.evaluate("document.activeElement.closest('th')?.dataset.key") != "id":
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        ids = [int(each) for each in visit.column("id")]
        assert ids == sorted(ids)
        while page.evaluate("document.activeElement.dataset?.page") != "next":
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.inner_text("#rows-page").startswith("Page 2 of")
        assert visit.status() != everything


def test_search_finds_words_in_any_text_and_ids(browser: Any, big: Path) -> None:
    with Visit(browser, big) as visit:
        visit.rows()
        visit.choose("outcome", "")
        visit.choose("task", "1")
        visit.page.fill("[name=text]", "QUERY english")
        assert "of 396 that pass" in visit.status(), "all but the four hostile rows"
        visit.page.fill("[name=text]", "onload=document")
        assert "onload" in " ".join(visit.column("query") + visit.column("target"))
        visit.page.fill("[name=text]", "17")
        assert "17" in visit.column("id")


def test_hostile_texts_are_shown_and_never_run(browser: Any, big: Path) -> None:
    with Visit(browser, big) as visit:
        visit.rows()
        visit.choose("task", "1")
        visit.choose("outcome", "")
        visit.page.fill("[name=text]", "document.title")
        shown = visit.column("query") + visit.column("target")
        assert {HOSTILE[0], HOSTILE[1]} <= set(shown)
        assert visit.page.title() == f"{HOSTILE[0]} – relstack report"
        assert visit.page.evaluate("document.querySelectorAll('img, article svg').length") == 0
        assert HOSTILE[1] in visit.page.inner_text("#rows-table thead")
        assert not visit.complaints


def test_dark_is_a_choice_that_is_remembered(browser: Any, report: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with Visit(browser, report) as visit:
        light = visit.page.evaluate(paper)
        visit.page.get_by_role("button", name="Dark").click()
        dark = visit.page.evaluate(paper)
        assert dark != light
        assert visit.page.get_attribute("#theme", "aria-pressed") == "true"
        visit.page.reload()
        assert visit.page.evaluate(paper) == dark
        visit.page.get_by_role("button", name="Dark").click()
        assert visit.page.evaluate(paper) == light


def test_the_threshold_s_slider_tells_f1_by_keyboard(browser: Any, report: Path) -> None:
    with Visit(browser, report) as visit:
        slider = visit.page.get_by_role("slider", name="Threshold")
        before = visit.page.inner_text(".probe output")
        x = visit.page.get_attribute(".probe-line", "x1")
        slider.press("ArrowRight")
        assert visit.page.inner_text(".probe output") != before
        assert float(visit.page.get_attribute(".probe-line", "x1")) > float(x)
        slider.press("Home")
        assert "At 0.00: F1" in visit.page.inner_text(".probe output")
        assert "recall 1.0000" in visit.page.inner_text(".probe output")


def test_a_text_id_is_found_in_either_case(browser: Any, strange: Path) -> None:
    with Visit(browser, strange) as visit:
        visit.rows()
        visit.choose("outcome", "")
        for word in ("Row-A17", "row-a17"):
            visit.page.fill("[name=text]", word)
            assert visit.column("id") == ["Row-A17"]


def test_words_say_their_language_and_find_their_direction(browser: Any, strange: Path) -> None:
    with Visit(browser, strange) as visit:
        visit.rows()
        visit.choose("outcome", "")
        tags = {}
        for language in ("vn", "ar", "unk", "nobody knows"):
            visit.choose("language", language)
            tags[language] = visit.page.get_attribute("#rows-table [data-label=query]", "lang")
        assert tags == {"vn": "vi", "ar": "ar", "unk": "", "nobody knows": ""}
        visit.choose("language", "ar")
        directions = "(each) => getComputedStyle(each).direction"
        assert visit.page.eval_on_selector("#rows-table [data-label=query]", directions) == "rtl"
        assert visit.page.eval_on_selector("#rows-table [data-label=target]", directions) == "ltr"


def test_tables_are_stops_only_where_they_are_wider_than_their_place(browser: Any, wide: Path) -> None:
    stops = """() => [...document.querySelectorAll(".scroll")].filter((each) => each.checkVisibility())
      .map((each) => [each.scrollWidth > each.clientWidth, each.tabIndex === 0, each.role === "region",
                      Boolean(each.ariaLabel)])"""
    with Visit(browser, wide, size=PHONE) as visit:
        visit.page.wait_for_selector("[role=region]")
        on_phone = visit.page.evaluate(stops)
        assert [True] * 4 in on_phone
        assert [False] * 4 in on_phone
        assert all(len(set(each)) == 1 for each in on_phone)
        visit.page.set_viewport_size({"width": 1600, "height": 900})
        visit.page.wait_for_selector("[role=region]", state="detached")
        assert visit.page.evaluate(stops) == [[False] * 4] * len(on_phone)


def test_a_phone_shows_sentences_whole_and_leaves_figures_their_room(browser: Any, wide: Path) -> None:
    with Visit(browser, wide, size=PHONE) as visit:
        cells = visit.page.eval_on_selector_all(
            ".stacked td, .stacked tbody th",
            "(all) => all.map((each) => { const box = each.getBoundingClientRect(); return [box.left, box.right]; })",
        )
        assert all(left >= 0 and right <= PHONE[0] for left, right in cells)
        assert all(right - left > 0.8 * PHONE[0] for left, right in cells)
        assert visit.page.eval_on_selector(".plain tbody th", "(each) => each.offsetWidth") <= 0.4 * PHONE[0] + 1
        assert visit.page.eval_on_selector(".stacked", "(each) => each.ariaLabel ?? each.role") == "table"


@pytest.mark.parametrize(("size", "is_open"), [(DESKTOP, True), (PHONE, False)])
def test_filters_are_open_where_there_is_room(
    browser: Any, strange: Path, size: tuple[int, int], *, is_open: bool
) -> None:
    with Visit(browser, strange, size=size) as visit:
        visit.rows()
        assert visit.page.is_visible("#filters") == is_open
        if not is_open:
            first = visit.page.eval_on_selector("#rows-table tbody tr", "(each) => each.getBoundingClientRect().top")
            visit.page.click("#narrow summary")
            assert visit.page.is_visible("#filters")
            after = visit.page.eval_on_selector("#rows-table tbody tr", "(each) => each.getBoundingClientRect().top")
            assert after - first > size[1] / 3


def test_a_curve_is_drawn_for_any_model_that_is_chosen(browser: Any, report: Path) -> None:
    with Visit(browser, report) as visit:
        points = "document.querySelector('.probe-curve').getAttribute('points')"
        before = visit.page.evaluate(points)
        assert len(before.split()) == 101
        probe = json.loads(str(visit.page.get_attribute("[data-probe]", "data-probe")))
        other = next(name for name in probe["models"] if name != probe["chosen"])
        visit.page.get_by_role("combobox", name="Model").select_option(other)
        assert visit.page.evaluate(points) != before
        heights = [float(each.split(",")[1]) for each in visit.page.evaluate(points).split()]
        f1 = probe["models"][other]["f1"]
        assert int(np.argmin(heights)) == int(np.argmax(f1))
        assert probe["top"] <= min(heights) < max(heights) <= probe["bottom"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_screenshots_are_not_blank(browser: Any, report: Path, size: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    with Visit(browser, report, size=size) as visit:
        for part in ("QI", "Rows"):
            visit.page.get_by_role("link", name=part, exact=True).click()
            visit.page.wait_for_timeout(300)
            pixels = np.asarray(image.open(io.BytesIO(visit.page.screenshot())).convert("L"))
            assert pixels.shape == size[::-1]
            assert pixels.std() > 10
            assert 0.01 < (pixels < 128).mean() < 0.5, "ink on paper"


def test_without_script_everything_but_the_rows_is_there(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.is_visible("text=Leaderboard of QI")
    assert page.locator("noscript p").is_visible()
    assert page.is_visible("text=Per stage, folds together")
    context.close()
