"""The page of a review in a real browser, by keys alone, on a screen and on a telephone."""

import shutil

import pytest

from ssl_pipeline.review.server import build_app
from ssl_pipeline.review.verdicts import decisions_of
from stages.commands.review import open_session
from stages.reviewed import review_queue
from tests.review.conftest import TOKEN, serve

pytestmark = pytest.mark.browser
SIZES = {"screen": (1280, 800), "telephone": (390, 844)}
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def served(page):
    """The address of the page, served by a thread of its own."""
    with serve(build_app(open_session(page.study, "anna"), TOKEN)) as port:
        yield f"http://127.0.0.1:{port}/?token={TOKEN}"


@pytest.fixture(params=SIZES)
def tab(request, chromium, served):
    """The open page with its first item drawn; nothing may fail in it."""
    width, height = SIZES[request.param]
    opened = chromium.new_page(viewport={"width": width, "height": height})
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    opened.goto(served)
    opened.wait_for_selector("body[data-item]")
    yield opened
    opened.close()
    assert errors == []


def press(tab, key):
    """Press a key that leads to another item, and wait until that is drawn."""
    before = tab.get_attribute("body", "data-item")
    tab.keyboard.press(key)
    tab.wait_for_selector(f"body:not([data-item='{before}'])")


def test_all_items_are_answered_by_keys_alone(page, tab):
    items = review_queue(page.study)
    for key in ("a", "r", "u", "a", "r", "a"):
        press(tab, key)
    tab.keyboard.press("2")
    press(tab, "r")
    assert tab.get_attribute("body", "data-item") == "none"
    entries = page.log.read()
    assert [entry.answer[0] for entry in entries] == list("aruarar")
    assert entries[-1].codes == ("metal",) and {entry.item for entry in entries} == {
        item.code for item in items
    }
    assert decisions_of(entries).scans


def test_next_and_undo_lead_back(page, tab):
    first = tab.get_attribute("body", "data-item")
    press(tab, "n")
    second = tab.get_attribute("body", "data-item")
    press(tab, "a")
    press(tab, "z")
    assert tab.get_attribute("body", "data-item") == second != first
    assert [entry.answer for entry in page.log.read()] == ["accept", "withdraw"]


def test_next_leads_through_all_items_before_it_comes_round(tab):
    names = [tab.get_attribute("body", "data-item")]
    for _ in range(6):
        press(tab, "n")
        names.append(tab.get_attribute("body", "data-item"))
    assert len(set(names)) == 7
    press(tab, "n")
    assert tab.get_attribute("body", "data-item") == names[0]


def test_keys_scroll_and_show_labels(tab):
    axial = tab.locator("figure img").first
    source = axial.get_attribute("src")
    for key in ("ArrowUp", "l"):
        tab.keyboard.press(key)
        tab.wait_for_selector(f"figure img:not([src='{source}'])")
        source = axial.get_attribute("src")
    assert tab.get_attribute("#overlay", "aria-pressed") == "true"
    assert tab.locator("figure output").first.text_content() == "14/24"


def test_the_page_fits_its_screen_and_has_no_barrier(tab):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    widths = tab.locator("html").evaluate("element => [element.scrollWidth, element.clientWidth]")
    assert widths[0] <= widths[1]
    tags = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    results = axe.Axe().run(tab, options=tags)
    assert results.violations_count == 0, results.generate_report()
