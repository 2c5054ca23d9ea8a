"""`ssl-pipeline review` as a process: killed, out of space, beside another, before other accounts.

The study lies in a folder that everybody may enter, so that modes alone keep others out.
"""

import os
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from threading import Thread

import httpx
import pytest

from ssl_pipeline.review.audit_log import AuditLog
from stages.commands.review import OPENING_PAGE
from tests.review.conftest import GIVEN, write_asked_study
from tests.review.server_process import review_server

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
READS = 'for file; do cat "$file" >/dev/null 2>&1 && echo "$file"; done; true'


@pytest.fixture(scope="module")
def open_study():
    """The small study, in a folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield write_asked_study(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def ben(open_study):
    """A server on a screen, of a user whose umask lets everybody in."""
    before = os.umask(0)
    try:
        file = open_study.folder.parent / "tiny.yaml"
        with review_server(file, "ben", DISPLAY=":0", BROWSER="/bin/true %s") as server:
            yield server
    finally:
        os.umask(before)


@pytest.fixture
def log(open_study):
    return AuditLog(open_study.pseudonyms.study_folder)


def test_the_page_that_opens_the_browser_is_for_its_owner_alone_and_goes_with_the_server(
    open_study, ben
):
    (page,) = open_study.pseudonyms.study_folder.glob(f"*_{OPENING_PAGE}")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600 and ben.url in page.read_text()


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="another account needs root"
)
def test_another_account_of_the_machine_reads_nothing(open_study, ben, log):
    assert ben.answer().status_code == 200
    control = open_study.folder.parent / "tiny.yaml"
    private = [each for each in open_study.pseudonyms.private_folder.rglob("*") if each.is_file()]
    assert log.path in private and len(private) > 3
    secret = [*private, Path(f"/proc/{ben.process.pid}/environ")]
    done = subprocess.run(
        [*NOBODY, "sh", "-c", READS, "sh", control, *secret], capture_output=True, text=True
    )
    assert done.stdout.split() == [str(control)], done.stderr
    token = ben.url.partition("token=")[2]
    assert token not in Path(f"/proc/{ben.process.pid}/cmdline").read_text()
    assert httpx.get(ben.browser.base_url.join("/status")).status_code == 403


def test_an_answer_that_does_not_fit_on_the_disk_is_refused_and_the_log_is_whole(ben, log):
    ben.answer()
    before, limits = log.read(), resource.prlimit(ben.process.pid, resource.RLIMIT_FSIZE)
    room = log.path.stat().st_size + 100  # for a part of the line; writes are real, and torn
    resource.prlimit(ben.process.pid, resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        refused = ben.answer()
    finally:
        resource.prlimit(ben.process.pid, resource.RLIMIT_FSIZE, limits)
    assert refused.status_code == 507 and "NOT saved" in refused.json()["error"]
    assert log.read() == before
    assert ben.answer().json() == {"number": len(before) + 1}
    assert len(log.read()) == len(before) + 1


def test_a_server_killed_while_it_saves_loses_no_confirmed_answer_and_stops_no_other_reader(
    open_study, ben, log
):
    file = open_study.folder.parent / "tiny.yaml"
    sent, confirmed = set(), {}  # answers by the time that each took, its name here; and numbers
    with review_server(file, "anna") as anna:
        name = anna.browser.get("/status").json()["next"][0]

        def answer_until_the_end(thread):
            try:
                for turn in count():
                    dwell_s = float(f"{turn}.{thread}")
                    sent.add(dwell_s)
                    saved = anna.browser.post(
                        f"/items/{name}/answer", json=GIVEN | {"dwell_s": dwell_s}
                    )
                    confirmed[dwell_s] = saved.json()["number"]
            except httpx.TransportError:
                pass

        threads = [Thread(target=answer_until_the_end, args=(each,)) for each in (1, 2, 3)]
        for thread in threads:
            thread.start()
        others = [ben.browser.post("/undo").status_code for _ in range(3)]
        while len(confirmed) < 3:
            assert any(thread.is_alive() for thread in threads)
            time.sleep(0.02)
        anna.process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    entries = log.read()
    logged = {each.number: each.dwell_s for each in entries if each.reader == "anna"}
    assert {number: dwell_s for dwell_s, number in confirmed.items()}.items() <= logged.items()
    assert set(logged.values()) <= sent and len(set(logged.values())) == len(logged), "each once"
    assert others == [200] * 3
    left = ben.browser.get("/status").json()
    assert ben.answer().status_code == 200 and len(log.read()) == len(entries) + 1
    with review_server(file, "anna") as anna:
        assert anna.browser.get("/status").json()["total"] == left["total"]
        assert name not in anna.browser.get("/status").json()["next"]
