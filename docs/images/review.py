"""The pictures of the page of a review: a CT with its labels, on a screen and on a telephone.

    python docs/images/review.py workflows/studies/demo.yaml docs/images

The study's stage inventory must have run. A Chromium must be installed, and the packages of
`.[browser]`. Nothing is answered.
"""

import argparse
import shutil
import time
from pathlib import Path
from threading import Thread

import uvicorn
from playwright.sync_api import sync_playwright

from ssl_pipeline.review.config import Review
from ssl_pipeline.review.server import build_app
from stages.commands.review import open_session
from stages.core.study import Study
from stages.core.study_file import load_study

SIZES = {"screen": (1280, 800), "telephone": (390, 844)}
TOKEN = "pictures"  # noqa: S105
SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def draw_pictures(study_file: Path, folder: Path) -> None:
    """Write review_screen.png and review_telephone.png of the first item that has labels."""
    everything = Review(accepted_share=1.0, planted_share=0.0, repeated_share=0.0)
    address = _serve(load_study(study_file).model_copy(update={"review": everything}))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", *SOFTWARE_WEBGL]
        )
        for name, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(address)
            page.wait_for_selector("body[data-item]")
            for _ in range(100):
                page.keyboard.press("l")
                page.wait_for_timeout(1000)
                if "labels" in (page.text_content("#overlay") or ""):
                    break
                page.keyboard.press("n")
                page.wait_for_timeout(3000)
            page.keyboard.press("w")
            page.wait_for_timeout(3000)
            page.screenshot(path=folder / f"review_{name}.png")
        browser.close()


def _serve(study: Study) -> str:
    """The address of the page, served until the program ends."""
    app = build_app(open_session(study, "pictures"), TOKEN)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}/?token={TOKEN}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study_file", type=Path, help="YAML file of a study")
    parser.add_argument("folder", type=Path, help="folder to write to")
    draw_pictures(**vars(parser.parse_args()))
