"""The page of a review in a real browser, by keys alone, on a screen and on a telephone.

With NiiVue in a software WebGL, and with slices where the browser has none.
"""

import shutil
from contextlib import contextmanager

import pytest

from ssl_pipeline.review.niivue import install_viewer
from ssl_pipeline.review.server import build_app
from ssl_pipeline.review.verdicts import decisions_of
from stages.commands.review import open_session
from stages.reviewed import review_queue
from tests.review.conftest import TOKEN, page_of, serve, write_fully_asked_study

pytestmark = pytest.mark.browser
SIZES = {"screen": (1280, 800), "telephone": (390, 844)}
CHROMIUM = shutil.which("chromium")
GRAPHICS = {
    "3D": ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
    "slices": ["--disable-3d-apis"],
}  # by the view that the page begins with


@pytest.fixture(scope="module", params=GRAPHICS)
def chromium(request):
    """A headless Chromium with WebGL, and one without."""
    if request.param == "3D" and not install_viewer():
        pytest.skip("NiiVue is not within reach")
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *GRAPHICS[request.param]]
        )
        yield browser
        browser.close()


@pytest.fixture
def served(page):
    """The address of the page, served by a thread of its own."""
    with serve(build_app(open_session(page.study, "anna"), TOKEN)) as port:
        yield f"http://127.0.0.1:{port}/?token={TOKEN}"


@contextmanager
def open_tab(chromium, size, address):
    """The open page with its first item drawn; nothing may fail in it."""
    width, height = SIZES[size]
    opened = chromium.new_page(viewport={"width": width, "height": height})
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    opened.goto(address)
    opened.wait_for_selector("body[data-item]")
    yield opened
    opened.close()
    # Chromium reports an address that is refused, which the page explains in its own words.
    assert [error for error in errors if "status of 409" not in error] == []


@pytest.fixture(params=SIZES)
def tab(request, chromium, served):
    """The page of the small study, on a screen and on a telephone."""
    with open_tab(chromium, request.param, served) as opened:
        yield opened


def press(tab, key):
    """Press a key that leads to another item, and wait until that is drawn."""
    before = tab.get_attribute("body", "data-item")
    tab.keyboard.press(key)
    tab.wait_for_selector(f"body:not([data-item='{before}'])")


def assert_no_barrier(tab):
    """The page fits its screen, and axe finds nothing that keeps people from using it.

    It is scrolled to its end, where the footer covers nothing.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    tab.evaluate("scrollTo(0, document.body.scrollHeight)")
    widths = tab.locator("html").evaluate("element => [element.scrollWidth, element.clientWidth]")
    assert widths[0] <= widths[1]
    tags = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    results = axe.Axe().run(tab, options=tags)
    assert results.violations_count == 0, results.generate_report()


def test_all_items_are_answered_by_keys_alone(page, tab):
    items = review_queue(page.study)
    for key in ("a", "r", "u", "a", "r", "a"):
        press(tab, key)
    tab.keyboard.press("2")
    press(tab, "r")
    assert tab.get_attribute("body", "data-item") == "none"
    assert tab.locator("button:visible").count() == 2, "next and undo"
    assert_no_barrier(tab)
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


def is_without_webgl(tab):
    return tab.get_attribute("body", "data-view") == "slices"


def pixels_after(tab, key, before=b""):
    """What stands on the screen after a key, once it is another picture than `before`."""
    if key:
        tab.keyboard.press(key)
    figure = tab.locator("figure:visible").first
    for _ in range(100):
        pixels = figure.screenshot()
        if pixels != before:
            return pixels
        tab.wait_for_timeout(50)
    raise AssertionError(f"{key} changes nothing")


def test_keys_scroll_and_change_window_and_overlay(tab):
    before = pixels_after(tab, "")
    for key in ("ArrowUp", "l", "l", ".", "+", "w"):
        before = pixels_after(tab, key, before)
    assert tab.get_attribute("#overlay", "aria-pressed") == "true"
    assert "foreground" in tab.text_content("#overlay") and "auto" in tab.text_content("#window")
    assert "14/24" in tab.locator("figure:visible").first.text_content()
    assert_no_barrier(tab)


def test_every_view_draws_where_there_is_webgl_and_slices_where_there_is_none(tab):
    assert_no_barrier(tab)
    if is_without_webgl(tab):
        assert "no WebGL 2" in tab.text_content("#message")
        assert tab.locator("#view").is_disabled() and tab.locator("canvas").count() == 0
        return
    before = pixels_after(tab, "")
    for view in ("planes", "slices", "3D"):
        before = pixels_after(tab, "v", before)
        assert tab.get_attribute("body", "data-view") == view
        assert_no_barrier(tab)
    slices = tab.locator("#volumes figcaption").text_content()
    box = tab.locator("canvas").bounding_box()
    tab.mouse.click(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.4)
    tab.wait_for_timeout(500)
    assert tab.locator("#volumes figcaption").text_content() != slices


def test_graphics_that_the_browser_takes_away_leave_slices(page, tab):
    if is_without_webgl(tab):
        pytest.skip("there are none")
    tab.evaluate(
        "document.querySelector('canvas').getContext('webgl2')"
        ".getExtension('WEBGL_lose_context').loseContext()"
    )
    tab.wait_for_selector("#slices img[src]")
    assert "slices are drawn" in tab.text_content("#message")
    press(tab, "a")
    assert len(page.log.read()) == 1


def test_a_store_that_is_purged_under_the_page_costs_one_sentence_and_no_answer(
    page, tab, tmp_path
):
    press(tab, "a")
    scans = {each.path for each in page.study.pseudonyms.origins.values()}
    places = {scan: tmp_path / str(at) for at, scan in enumerate(scans)}
    try:
        for scan, place in places.items():
            shutil.move(scan, place)
        item = tab.get_attribute("body", "data-item")
        tab.keyboard.press("r")
        tab.get_by_text("run the stage inventory again").wait_for()
        assert tab.get_attribute("body", "data-item") == item
        assert [entry.answer for entry in page.log.read()] == ["accept"]
    finally:
        for scan, place in places.items():
            shutil.move(place, scan)
    press(tab, "r")
    assert [entry.answer for entry in page.log.read()] == ["accept", "reject"]


def test_a_page_that_was_closed_goes_on_where_it_was(page, tab, served):
    press(tab, "a")
    item = tab.get_attribute("body", "data-item")
    again = tab.context.browser.new_page()
    tab.close()
    again.goto(served)
    again.wait_for_selector("body[data-item]")
    assert again.get_attribute("body", "data-item") == item and len(page.log.read()) == 1


BEGINS_WITH = {
    "label_fits": "labels",
    "prediction_correct": "labels beside prediction",
}  # the overlay, by the question


def test_labels_and_predictions_stand_over_the_scan_and_the_log_says_what_was_seen(
    chromium, tmp_path
):
    page = page_of(write_fully_asked_study(tmp_path, share=0, count=1))
    items = review_queue(page.study)
    assert {item.question for item in items} == {"label_fits", "prediction_correct"}
    with serve(build_app(open_session(page.study, "anna"), TOKEN)) as port:
        tab = chromium.new_page(viewport={"width": 390, "height": 600})
        tab.goto(f"http://127.0.0.1:{port}/?token={TOKEN}")
        tab.wait_for_selector("body[data-item]")
        for _ in items:
            tab.keyboard.press("1")
            press(tab, "a")
        tab.close()
    entries = page.log.read()
    assert {entry.item for entry in entries} == {item.code for item in items}
    assert all(entry.view.overlay == BEGINS_WITH[entry.question] for entry in entries)
    assert {entry.codes for entry in entries} == {("shifted",)}
