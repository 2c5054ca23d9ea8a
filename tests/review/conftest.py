"""Answers of readers, logs of them, and the page of a small study."""

import shutil
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

from ssl_pipeline.io.atomic import sha256_file, write_csv
from ssl_pipeline.review.audit_log import AuditLog
from ssl_pipeline.review.log_entry import ReaderAnswer
from ssl_pipeline.review.predictions import PREDICTIONS_TABLE
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


def write_asked_study(folder: Path, asked: str = ASKED) -> Study:
    """The tiny study with a review and its inventory."""
    file = write_study(folder)
    return with_review(file, asked)


def with_review(file: Path, asked: str) -> Study:
    """The study of a file with a review and its inventory."""
    file.write_text(file.read_text() + asked)
    study = load_study(file)
    run_stage("inventory", study, {})
    return study


def write_predictions(folder: Path, raw: Path, entropies: Mapping[str, float]) -> None:
    """What `ssl-pipeline predict` leaves, with the scans' own labels as label maps.

    `entropies` are by the name of the scan's file below `raw`.
    """
    folder.mkdir()
    rows = []
    for name, entropy in entropies.items():
        label_map = folder / name
        shutil.copy(raw / "labels" / name, label_map)
        rows.append(
            {
                "path": name,
                "series": "",
                "error": "",
                "scan_sha256": sha256_file(raw / "images" / name),
                "entropy": entropy,
                "label_map": name,
                "label_map_sha256": sha256_file(label_map),
                "dark (ml)": 1.5,
            }
        )
    write_csv(folder / PREDICTIONS_TABLE, list(rows[0]), rows)


def write_fully_asked_study(folder: Path, share: float = 1, count: int = 2) -> Study:
    """The tiny study with an empty label, one on another grid, and predictions for three scans.

    It asks about this share of scans and labels, and so many predictions; so many again are
    planted, and repeated. It has no tasks, for which readers who reject all that they see would
    leave nobody to score.
    """
    file = write_study(folder)
    file.write_text(file.read_text().partition("tasks:")[0])
    labels = folder / "raw/labels"
    for name, change in (("person0", lambda data: 0 * data), ("person1", lambda data: data[:20])):
        image = nib.load(labels / f"{name}.nii.gz")
        changed = change(np.asarray(image.dataobj))
        nib.save(nib.Nifti1Image(changed, image.affine), labels / f"{name}.nii.gz")
    entropies = {"person2.nii.gz": 0.1, "person3.nii.gz": 0.5, "person4.nii.gz": 0.3}
    write_predictions(folder / "predicted", folder / "raw", entropies)
    predictions = f"predictions: {{path: {folder}/predicted, count: {count}}}"
    shares = ", ".join(f"{name}_share: {share}" for name in ("accepted", "planted", "repeated"))
    return with_review(file, f"review: {{{shares}, {predictions}}}\n")


@pytest.fixture(scope="session")
def fully_asked_study(tmp_path_factory):
    """The study, in a folder that names a person."""
    return write_fully_asked_study(tmp_path_factory.mktemp(PERSON))


@pytest.fixture(scope="session")
def asked_study(tmp_path_factory):
    """The study, in a folder that names a person."""
    return write_asked_study(tmp_path_factory.mktemp(PERSON))


@pytest.fixture
def page(asked_study):
    """The page, with an empty log."""
    return page_of(asked_study)


@pytest.fixture
def full_page(fully_asked_study):
    """The page that asks about scans, labels and predictions, with an empty log."""
    return page_of(fully_asked_study)


def page_of(study: Study) -> Page:
    """The page of a study whose log is emptied."""
    for file in study.pseudonyms.study_folder.glob("*review_log*"):
        file.unlink()
    browser = client_of(study)
    browser.get("/", params={"token": TOKEN})
    return Page(study, browser, AuditLog(study.pseudonyms.study_folder))
