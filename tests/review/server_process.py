"""`ssl-pipeline review` as a process of its own."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.review.conftest import GIVEN


@dataclass(frozen=True)
class Server:
    """A server that runs, its secret, and a browser that has it."""

    process: subprocess.Popen
    printed: list[str]  # until it listens
    url: str
    browser: httpx.Client

    def answer(self):
        """Answer what is asked next; the response."""
        name = self.browser.get("/status").json()["next"][0]
        return self.browser.post(f"/items/{name}/answer", json=GIVEN)


@contextmanager
def review_server(study_file, reader, **env):
    """The command of one reader, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--config", study_file, "--reader", reader, "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-m", "stages", "review", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
    ) as process:
        try:
            printed = [process.stdout.readline()]
            while "?token=" not in printed[-1]:
                assert printed[-1], "".join(printed)
                printed.append(process.stdout.readline())
            url = next(word for word in printed[-1].split() if "?token=" in word)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as browser:
                browser.get(url)
                yield Server(process, printed, url, browser)
        finally:
            process.kill()
