"""Odd requests over real connections: none ends in an error of the server, or reads another file.

FUZZ says how many: 10,000 take about a minute.
"""

import json
import os
import random
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ssl_pipeline.review.server import build_app
from stages.commands.review import open_session
from tests.review.conftest import GIVEN, PERSON, TOKEN, serve

FUZZED = int(os.environ.get("FUZZ", "300"))
METHODS = ("GET", "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "TRACE", "get")
STARTS = ("/", "/items/", "/items/NAME", "/items/NAME/0/axial/", "/page.js/", "/status", "/undo")
ENDS = ("", "", "/answer", ".png", "?token=", "?window=auto&overlay=2", "#", "/0/axial/3.png")
WORDS = (
    *("..", "%2e%2e", "%252e%252e", "/", "%2f", "\\", "//", "etc/passwd", "items", "NAME", "axial"),
    *("0", "-1", "9" * 30, "9" * 5000, "é", "%ff", "%00", "%", "~", "..%c0%af", "page.html"),
    *(
        "file:///etc/passwd",
        "http://evil.example/",
        "server.py",
        "null",
        "nan",
        " ",
        "\t",
        "[",
        "::",
    ),
)
HOSTS = ("127.0.0.1:8765", "127.0.0.1:8765", "localhost", "evil.example", "[::1]:8", "", "é", "127")
ODD = (
    *(None, "", -1, 1e308, 10**400, True, [], {}, [[]], {"a": {}}, "\ud800", "\x00", "NaN"),
    *(["metal", "metal"], "a" * 5000, "Doe^Jane", [3, 4], [3, 4, 1e9]),
)


def odd_body(rng: random.Random) -> bytes:
    """An answer with odd fields, or bytes that are none."""
    if rng.random() < 0.4:
        return rng.choice((b"", b"{", b"[]", b"[" * 4000, b'{"a":' * 700, b"9" * 4090, b"\xff\xfe"))
    answer = dict(GIVEN)
    for key in rng.sample([*answer, "item", "number", "x"], rng.randint(1, 3)):
        answer[key] = rng.choice(ODD)
    return json.dumps(answer).encode()


def odd_request(rng: random.Random, name: str, cookie: str) -> bytes:
    """One request as bytes; some are no HTTP."""
    path = rng.choice(STARTS) + rng.choice(("/", "")).join(rng.choices(WORDS, k=rng.randint(0, 4)))
    target = (path + rng.choice(ENDS)).replace("NAME", name)
    body = odd_body(rng) if rng.random() < 0.5 else b""
    length = len(body) if rng.random() < 0.9 else rng.choice(("-1", "x", "", 0))
    lines = [
        f"{rng.choice(METHODS)} {target} HTTP/1.1",
        f"Host: {rng.choice(HOSTS)}",
        f"Content-Length: {length}",
        "Connection: close",
    ]
    if rng.random() < 0.9:
        lines.append(f"Cookie: {cookie if rng.random() < 0.9 else cookie[:-1] + 'é'}")
    if rng.random() < 0.1:
        odd = ("Origin: null", "Origin: http://evil.example", "X:" * 9)
        lines.append(rng.choice(odd))
    head = "\r\n".join(lines).encode("latin-1")
    return head + b"\r\n\r\n" + body


def answer_to(port: int, request: bytes) -> bytes:
    """All that the server sends until it ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        parts = []
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
    return b"".join(parts)


def odd_exchanges(browser: TestClient, port: int, count: int) -> Iterator[tuple[bytes, bytes]]:
    """So many odd requests of a reader whom the server knows, and what it answers."""
    rng = random.Random(0)
    name = browser.get("/status").json()["next"][0]
    cookie = cookie_of(browser)
    for _ in range(count):
        request = odd_request(rng, name, cookie)
        yield request, answer_to(port, request)


def cookie_of(browser: TestClient) -> str:
    """The header by which the server knows a browser."""
    return "; ".join(f"{key}={value}" for key, value in browser.cookies.items())


def private_words(found: bytes, folder: Path) -> list[str]:
    """What nobody may read that an answer holds, of a study in this folder."""
    words = (PERSON, "root:", "import ", str(folder))
    return [word for word in words if word.encode() in found and b"javascript" not in found]


@pytest.mark.timeout(1200)
def test_odd_requests_end_in_no_error_and_no_file(page):
    counts = Counter()
    with serve(build_app(open_session(page.study, "anna"), TOKEN)) as port:
        for request, found in odd_exchanges(page.browser, port, FUZZED):
            status = found[9:12]
            counts[status] += 1
            assert status[:1] in (b"2", b"3", b"4"), (request[:300], found[:300])
            assert not private_words(found, page.study.folder), request[:300]
        cookie = cookie_of(page.browser)
        sound = f"GET /status HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nConnection: close"
        assert b'"total":7' in answer_to(port, f"{sound}\r\n\r\n".encode())
    assert {b"200", b"400", b"403", b"404"} <= counts.keys()
    page.log.read()  # as it was written, whatever was answered
