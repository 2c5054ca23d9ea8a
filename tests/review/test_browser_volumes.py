"""Pairs and large scans in a real browser: what is drawn is looked at, and not only asked for."""

import io

import numpy as np
import pytest
from PIL import Image

from ssl_pipeline.review.pictures import LABELS, ReviewVolume
from ssl_pipeline.review.queue import ReviewItem
from ssl_pipeline.review.server import build_app
from ssl_pipeline.review.session import ReviewSession, VolumeSource
from ssl_pipeline.review.verdicts import decisions_of
from ssl_pipeline.review.viewer_volumes import DATA_OFFSET, MAX_VOXELS
from tests.review.conftest import TOKEN, serve
from tests.review.test_browser import (  # noqa: F401
    SIZES,
    assert_no_barrier,
    chromium,
    open_tab,
    pixels_after,
    press,
)
from tests.review.test_queue import CODE

pytestmark = pytest.mark.browser
PAIR = (CODE("copy"), CODE("original"))
LONG = (96, 96, 800)


def ball(shape, radius):
    """A bright ball with fine stripes through it, in a dark volume: (x, y, z), uint8."""
    x, y, z = np.ogrid[tuple(slice(-1, 1, side * 1j) for side in shape)]
    data = np.zeros(shape, np.uint8)
    data[x**2 + y**2 + z**2 < radius**2] = 200
    data[:, ::2] //= 2
    return data


def volume_of(data, spacing=(1.0, 1.0, 1.0)):
    return ReviewVolume(data, spacing, {"auto": (0.0, 200.0)}, {LABELS: lambda: data // 100})


def session_on(log, item, volumes):
    opened = [VolumeSource(lambda: True, lambda it=it: it) for it in volumes]
    sources = dict(zip(item.images, opened, strict=True))
    return ReviewSession([item], log, "anna", 1, CODE, sources, {})


def pixels_of(tab):
    """What each visible canvas or image of a slice shows, as grey values."""
    shots = (each.screenshot() for each in tab.locator("canvas:visible, img:visible").all())
    return [np.asarray(Image.open(io.BytesIO(shot)).convert("L"), np.int16) for shot in shots]


def is_drawn(pixels):
    """Whether there is a bright scan on a dark ground, and not one colour."""
    return pixels.std() > 10 and (pixels > 80).mean() > 0.02


def test_a_suspected_copy_and_its_original_are_both_drawn(log, chromium):  # noqa: F811
    item = ReviewItem("-".join(PAIR), "same_subject", PAIR, "b" * 64, "copy")
    pair = ball((60, 60, 40), 0.9), ball((50, 50, 30), 0.5)
    session = session_on(log, item, [volume_of(data) for data in pair])
    with (
        serve(build_app(session, TOKEN)) as port,
        open_tab(chromium, "screen", f"http://127.0.0.1:{port}/?token={TOKEN}") as tab,
    ):
        for width, height in SIZES.values():
            tab.set_viewport_size({"width": width, "height": height})
            tab.wait_for_timeout(500)
            shown = pixels_of(tab)
            assert len(shown) in (2, 6) and all(map(is_drawn, shown))
            first, second = shown[0], shown[len(shown) // 2]
            assert (first > 80).mean() > 1.5 * (second > 80).mean(), "each is its own scan"
            words = tab.text_content("main")
            assert "First scan" in words and "Second scan" in words
            boxes = [each.bounding_box() for each in tab.locator("canvas:visible").all()]
            if boxes:  # slices stand one above the other
                across = "x" if width > height else "y"
                assert boxes[0][across] < boxes[1][across], "side by side where they fit"
            assert_no_barrier(tab)
        press(tab, "r")
    assert set(decisions_of(log.read()).distinct_pairs) == {frozenset(PAIR)}


def test_800_slices_are_drawn_coarse_and_then_in_full(log, chromium):  # noqa: F811
    item = ReviewItem(CODE("1"), "usable", (CODE("1"),), "b" * 64, "accepted")
    session = session_on(log, item, [volume_of(ball(LONG, 0.9), (0.7, 0.7, 0.5))])
    with (
        serve(build_app(session, TOKEN)) as port,
        open_tab(chromium, "screen", f"http://127.0.0.1:{port}/?token={TOKEN}") as tab,
    ):
        assert all(map(is_drawn, pixels_of(tab)))
        assert "401/800" in tab.text_content("main")
        if tab.get_attribute("body", "data-view") == "slices":
            return
        before = pixels_after(tab, "")
        with tab.expect_response("**/scan.nii?detail=full") as full:
            tab.keyboard.press("f")
        sent = int(full.value.headers["content-length"]) - DATA_OFFSET
        assert sent == 2 * np.prod(LONG) > 2 * MAX_VOXELS["coarse"]
        pixels_after(tab, "", before)
        assert all(map(is_drawn, pixels_of(tab)))
        assert "every voxel" in tab.text_content("#detail")
