"""Answers of readers, logs of them, and the page of a small study."""

import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from ssl_pipeline.review.audit_log import AuditLog
from ssl_pipeline.review.log_entry import ReaderAnswer
from ssl_pipeline.review.server import build_app
from stages.commands.review import open_session
from stages.core.runner import run_stage
from stages.core.study import Study
from stages.core.study_file import load_study
from tests.conftest import write_study

ANSWER = ReaderAnswer.model_validate(
    {
        "item": "0123456789ab",
        "content_sha256": "a" * 64,
        "question": "usable",
        "round": 0,
        "answer": "reject",
        "codes": ("motion",),
        "dwell_s": 2.5,
        "view": {"slices": (3, 4, 5), "window": "auto", "overlay": ""},
    }
)
GIVEN = {"answer": "reject", "codes": ["metal"], "dwell_s": 1.5}
GIVEN |= {
    "view": {"slices": [3, 4, 5], "window": "auto", "overlay": "labels"}
}  # what the page sends
TOKEN = "a-token-of-the-test"
PERSON = "Doe^Jane"  # in every path of the study
SHARES = "accepted_share: 0.5, planted_share: 0.5, repeated_share: 0.5"
ASKED = f"review: {{labels: false, {SHARES}}}\n"


def answer_of(**changes):
    """An answer that differs from ANSWER in these fields."""
    return ReaderAnswer.model_validate(ANSWER.model_dump() | changes)


@pytest.fixture
def log(tmp_path):
    """An empty log."""
    return AuditLog(tmp_path)


@dataclass
class Page:
    """A study that asks for a review, and a browser of the reader "anna" on its page."""

    study: Study
    browser: TestClient
    log: AuditLog

    def item(self) -> Any:
        """The item that is asked next."""
        return self.browser.get(f"/items/{self.browser.get('/status').json()['next'][0]}").json()


def client_of(study: Study, reader: str = "anna", **more: Any) -> TestClient:
    """A browser without the token."""
    app = build_app(open_session(study, reader), TOKEN)
    return TestClient(app, base_url="http://127.0.0.1:8765", **more)


@contextmanager
def serve(app, **settings):
    """Serve an application over real connections, in a thread of its own; yields its port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", **settings)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def write_asked_study(folder: Path) -> Study:
    """The tiny study with a review and its inventory."""
    file = write_study(folder)
    file.write_text(file.read_text() + ASKED)
    study = load_study(file)
    run_stage("inventory", study, {})
    return study


@pytest.fixture(scope="session")
def asked_study(tmp_path_factory):
    """The study, in a folder that names a person."""
    return write_asked_study(tmp_path_factory.mktemp(PERSON))


@pytest.fixture
def page(asked_study):
    """The page, with an empty log."""
    log = AuditLog(asked_study.pseudonyms.study_folder)
    for file in asked_study.pseudonyms.study_folder.glob("*review_log*"):
        file.unlink()
    browser = client_of(asked_study)
    browser.get("/", params={"token": TOKEN})
    return Page(asked_study, browser, log)
