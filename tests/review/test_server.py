"""The page over HTTP: what it asks and saves, and that it serves its owner's browser alone."""

import errno
import fcntl
import gzip
import hmac
import io
import os
import shutil
from collections import Counter

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ssl_pipeline.review import niivue, server
from ssl_pipeline.review.server import PAGE_FILES, build_app
from ssl_pipeline.review.verdicts import decisions_of
from stages.commands.review import open_session
from stages.reviewed import review_queue
from tests.review.conftest import (
    GIVEN,
    PERSON,
    TOKEN,
    client_of,
    page_of,
    serve,
    write_fully_asked_study,
)
from tests.review.test_fuzz import answer_to, cookie_of


@pytest.fixture
def item(page):
    return page.item()


def picture_of(page, name, plane="axial", index=12, overlay=""):
    asked = {"low": 0, "high": 1000, "overlay": overlay}
    answer = page.browser.get(f"/items/{name}/0/{plane}/{index}.png", params=asked)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_a_reader_answers_all_items_and_then_nothing_is_left(page):
    for left in range(7, 0, -1):
        status = page.browser.get("/status").json()
        assert (status["left"], status["awaiting"], status["total"]) == (left, left, 7)
        name = status["next"][0]
        saved = page.browser.post(f"/items/{name}/answer", json=GIVEN)
        assert saved.json() == {"number": 8 - left}
    assert page.browser.get("/status").json()["next"] == []
    entries = page.log.read()
    assert {entry.reader for entry in entries} == {"anna"} and len(entries) == 7
    assert entries[0].view.overlay == "labels" and entries[0].codes == ("metal",)
    assert len(set(decisions_of(entries).scans) & set(page.study.pseudonyms.origins)) == 3


def test_undo_takes_the_last_answer_back_and_asks_again(page, item):
    page.browser.post(f"/items/{item['name']}/answer", json=GIVEN)
    assert page.browser.post("/undo").json() == {"name": item["name"]}
    assert page.browser.get("/status").json()["left"] == 7
    assert page.browser.post("/undo").json() == {"name": ""}
    assert [entry.answer for entry in page.log.read()] == ["reject", "withdraw"]


def test_slices_are_those_of_the_scan_in_its_shape_with_labels_over_it(page, item):
    (volume,) = item["volumes"]
    assert volume["slices"] == {"axial": 24, "coronal": 34, "sagittal": 34}
    assert list(volume["windows"]) == ["auto"] and volume["overlays"] == ["labels", "foreground"]
    axial = picture_of(page, item["name"])
    assert axial.ndim == 2 and max(axial.shape) == 640 and axial.std() > 10
    assert not np.array_equal(axial, picture_of(page, item["name"], index=2))
    coloured = picture_of(page, item["name"], overlay="labels")
    assert coloured.ndim == 3 and np.ptp(coloured.astype(int), axis=2).max() > 40
    assert picture_of(page, item["name"], "sagittal").shape != axial.shape


def test_volumes_are_those_of_the_scan_without_a_word_of_the_patient(page, item):
    layers = {}
    for layer in ("scan", *item["volumes"][0]["overlays"]):
        address = f"/items/{item['name']}/0/{layer}.nii"
        answer = page.browser.get(address, params={"detail": "coarse"})
        assert answer.status_code == 200 and PERSON.encode() not in answer.content
        layers[layer] = np.asarray(nib.Nifti1Image.from_bytes(answer.content).dataobj)
    assert {layer.shape for layer in layers.values()} == {(34, 34, 24)}
    assert np.std(layers["scan"]) > 0 and set(np.unique(layers["labels"])) == {0, 1, 2}
    for asked in ({}, {"detail": "all"}):
        assert page.browser.get(address, params=asked).status_code == 404


@pytest.mark.parametrize("content", [b"", b"alert(1)"])
def test_a_viewer_that_is_missing_or_not_the_pinned_one_is_not_served(
    page, tmp_path, monkeypatch, content
):
    monkeypatch.setattr(niivue, "FILE", tmp_path / "niivue.js")
    niivue.FILE.write_bytes(content)
    browser = client_of(page.study)
    browser.get("/", params={"token": TOKEN})
    assert browser.get("/status").json()["viewer"] is False
    refused = browser.get("/niivue.js")
    assert refused.status_code == 404 and refused.json()


def test_nothing_tells_a_planted_item_from_others(page):
    described = []
    while names := page.browser.get("/status").json()["next"]:
        described.append(page.browser.get(f"/items/{names[0]}").json())
        page.browser.post(f"/items/{names[0]}/answer", json=GIVEN)
    assert len(described) == 7
    for each in described:
        low, high = each["volumes"][0].pop("windows")["auto"]  # of the scan that was corrupted
        assert low < high
    assert len({str(each | {"name": ""}) for each in described}) == 1


def test_no_response_tells_why_a_scan_a_label_or_a_prediction_is_asked(full_page):
    kinds = Counter((item.question, item.origin) for item in review_queue(full_page.study))
    assert kinds == {
        ("usable", "accepted"): 12, ("usable", "planted"): 6, ("label_fits", "fitting_label"): 8,
        ("label_fits", "empty_label"): 2, ("label_fits", "off_grid_label"): 2,
        ("label_fits", "planted"): 4, ("prediction_correct", "prediction"): 4,
        ("prediction_correct", "planted"): 2,
    }  # fmt: skip
    described = {}
    for name in full_page.browser.get("/status").json()["next"]:
        item = full_page.browser.get(f"/items/{name}").json() | {"name": ""}
        item["volumes"][0].pop("windows")  # of each scan its own
        described.setdefault(item["question"], []).append(item)
    assert {question: len(items) for question, items in described.items()} == {
        "usable": 18, "label_fits": 16, "prediction_correct": 6,
    }  # fmt: skip
    for question, overlays in (
        ("label_fits", ["labels", "foreground"]),
        ("prediction_correct", ["labels", "prediction", "foreground"]),
    ):
        assert len({str(item) for item in described[question]}) == 1
        assert described[question][0]["volumes"][0]["overlays"] == overlays


def item_about(page, question):
    names = page.browser.get("/status").json()["next"]
    items = (page.browser.get(f"/items/{name}").json() for name in names)
    return next(item for item in items if item["question"] == question)


@pytest.mark.parametrize(
    ("question", "file"), [("label_fits", "label"), ("prediction_correct", "prediction")]
)
def test_an_answer_on_a_label_or_prediction_that_changed_meanwhile_is_refused(
    tmp_path, question, file
):
    page = page_of(write_fully_asked_study(tmp_path))
    item = item_about(page, question)
    for path in tmp_path.glob("predicted/*.gz" if file == "prediction" else "raw/labels/*"):
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\0"))
    refused = page.browser.post(f"/items/{item['name']}/answer", json=GIVEN)
    assert refused.status_code == 409 and page.log.read() == ()


@pytest.mark.parametrize("change", [
    {"answer": "maybe"}, {"codes": ["Jane Doe"]}, {"dwell_s": -1}, {"dwell_s": "x"},
    {"view": {}}, {"view": GIVEN["view"] | {"overlay": "Jane Doe"}},
    {"view": GIVEN["view"] | {"overlay": True}},
    {"comment": "Jane Doe"}, {"codes": "metal" * 2000},
])  # fmt: skip
def test_what_is_no_answer_is_refused_and_not_saved(page, item, change):
    refused = page.browser.post(f"/items/{item['name']}/answer", json=GIVEN | change)
    assert refused.status_code == 400 and page.log.read() == ()


@pytest.mark.parametrize(("module", "call", "number", "reason"), [
    (os, "fsync", errno.ENOSPC, "the disk is full"),
    (fcntl, "flock", errno.ENOLCK, "a file system without locks"),
])  # fmt: skip
def test_an_answer_that_the_file_system_refuses_is_said_and_not_saved(
    page, item, monkeypatch, module, call, number, reason
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(module, call, refuse)
        refused = page.browser.post(f"/items/{item['name']}/answer", json=GIVEN)
    assert refused.status_code == 507
    assert "NOT saved" in refused.json()["error"] and reason in refused.json()["error"]
    assert page.log.read() == ()


def test_a_scan_that_changed_or_is_gone_is_neither_shown_nor_answered(page, item, tmp_path):
    scan = page.study.pseudonyms.origins[review_queue(page.study)[0].scans[0]].path
    shutil.copy(scan, tmp_path / "whole")
    seen = []
    try:
        for damage in (lambda: os.truncate(scan, 9000), lambda: os.unlink(scan)):
            damage()
            browser = client_of(page.study, "ben")
            browser.get("/", params={"token": TOKEN})
            seen += asked_of(browser).values()
            for file in page.log.path.parent.glob("*review_log*"):
                file.unlink()
    finally:
        shutil.copy(tmp_path / "whole", scan)
    assert {each.status_code for each in seen} == {200, 409}
    for each in seen:
        assert each.status_code == 200 or "run the stage inventory again" in each.json()["error"]


def asked_of(browser):
    """Every item that a reader is asked, as it is served; each is answered, where that works."""
    seen = {}
    while names := [name for name in browser.get("/status").json()["next"] if name not in seen]:
        for name in names:
            seen[name] = browser.get(f"/items/{name}")
            answered = browser.post(f"/items/{name}/answer", json=GIVEN)
            assert answered.status_code == seen[name].status_code
    return seen


def test_a_log_that_was_changed_stops_the_page_in_one_sentence(page, item):
    page.browser.post(f"/items/{item['name']}/answer", json=GIVEN)
    page.log.path.write_bytes(page.log.path.read_bytes()[:-9])
    for refused in (
        page.browser.get("/status"), page.browser.post(f"/items/{item['name']}/answer", json=GIVEN),
    ):  # fmt: skip
        assert refused.status_code == 503 and "review verify says where" in refused.json()["error"]
        assert PERSON not in refused.text


ADDRESSES = (
    *("/", "/page.js", "/page.css", "/niivue.js", "/status", "/items/0123456789ab"),
    *("/items/0123456789ab/0/scan.nii?detail=coarse", "/items/0123456789ab/neighbours/0.jpeg"),
)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("headers", [
    {"host": "evil.example"}, {"host": "127.0.0.1.evil.example:8765"}, {"host": ""},
    {"host": "127.0.0.1:8765@evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"},
    {"origin": "https://127.0.0.1:8765"},
])  # fmt: skip
def test_another_host_or_origin_is_refused_with_the_token_too(page, address, headers):
    refused = page.browser.get(address, headers=headers)
    assert refused.status_code == 403 and "review" not in refused.text.lower()


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_is_served_without_the_token(page, address):
    for token in (None, "", TOKEN[:-1], TOKEN + "x", "é"):
        stranger = client_of(page.study)
        refused = stranger.get(address, params={"token": token} if token is not None else {})
        assert refused.status_code == 403 and not refused.cookies


def test_a_token_is_compared_in_constant_time(page, monkeypatch):
    compared, compare = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *two: compared.append(two) or compare(*two))
    stranger = client_of(page.study)
    stranger.get("/", params={"token": "of a stranger"})
    stranger.get(
        "/status", headers={"cookie": "; ".join(f"{key}=x" for key in page.browser.cookies)}
    )
    page.browser.get("/status")
    assert [given for given, _ in compared] == [b"of a stranger", b"", b"x", TOKEN.encode()]
    assert {token for _, token in compared} == {TOKEN.encode()}


PLACES = (
    "/secret.js", "/linked/secret.js", "/link.js", "/../secret.js", "/%2e%2e/secret.js",
    "/..%2fsecret.js", "/%252e%252e/secret.js", "/..%5csecret.js", "/..%c0%afsecret.js",
    "/page.js/../../secret.js", "/page.js%00/../../secret.js", "//secret.js", "/page.html",
    "/items/../../secret.js", "/items/%2e%2e%2f%2e%2e%2fsecret.js", "/file:///secret.js",
    "/items/NAME/0/../../../../secret.nii?detail=coarse", "/items/NAME/0/%2e%2e%2fsecret.png",
    "/items/NAME/0/%2e%2e/secret.nii?detail=coarse",
)  # fmt: skip


def test_no_other_file_is_reached(page, item, tmp_path, monkeypatch):
    shutil.copytree(server.PAGE, tmp_path / "page")
    for name in ("secret.js", "secret.nii", "secret.png"):
        (tmp_path / name).write_text("SECRET")
    (tmp_path / "page/secret.js").write_text("SECRET")
    (tmp_path / "page/link.js").symlink_to(tmp_path / "secret.js")
    (tmp_path / "page/linked").symlink_to(tmp_path)
    monkeypatch.setattr(server, "PAGE", tmp_path / "page")
    with serve(build_app(open_session(page.study, "anna"), TOKEN)) as port:
        for place in PLACES:
            target = place.replace("NAME", item["name"])
            head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            found = answer_to(port, f"{head}Cookie: {cookie_of(page.browser)}\r\n\r\n".encode())
            assert found[9:12] == b"404" and b"SECRET" not in found, place


def test_the_token_leaves_the_address_and_no_script_can_read_it(page):
    first = client_of(page.study, follow_redirects=False).get("/", params={"token": TOKEN})
    assert (first.status_code, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie


def test_the_page_loads_nothing_from_elsewhere(page):
    for address in ("/", *(f"/{name}" for name in PAGE_FILES)):
        answer = page.browser.get(address)
        assert answer.status_code == 200 and "//" not in answer.text.replace("// ", "")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"


def test_nothing_that_is_served_or_written_names_a_person_or_a_path(page):
    names, texts = page.browser.get("/status").json()["next"], []
    for address in ("/", "/status", *(f"/items/{name}" for name in names)):
        answer = page.browser.get(address)
        texts += [answer.text, str(answer.headers)]
    page.browser.post(f"/items/{names[0]}/answer", json=GIVEN)
    texts.append(page.log.path.read_text())
    for text in texts:
        for private in (PERSON, "Jane", ".nii", "images/", str(page.study.folder.parent)):
            assert private not in text
    scans = page.study.pseudonyms.origins
    assert not any(code in text for code in scans for text in texts[:-1])
