"""Exclusive locks: one holder at a time, freed by any end of it, with the text of who it is."""

import errno
import fcntl
import os
import subprocess
import sys
from threading import Event, Thread

import pytest

from ssl_pipeline.io.locks import NoLocksError, exclusive_lock, try_exclusive_lock

HOLD = """
import sys
from pathlib import Path
from ssl_pipeline.io.locks import try_exclusive_lock
with try_exclusive_lock(Path(sys.argv[1]), "process 7") as holder:
    print(holder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


def test_another_process_is_named_until_it_is_killed(path):
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"None\n"
        for _ in range(2):
            with try_exclusive_lock(path, "another") as holder:
                assert holder == "process 7"
        process.kill()
        process.wait()
    with try_exclusive_lock(path, "another") as holder:
        assert holder is None and path.read_text() == "another"


def test_an_error_frees_the_lock(path):
    with pytest.raises(KeyError), try_exclusive_lock(path, "first"):
        raise KeyError
    with try_exclusive_lock(path, "second") as holder:
        assert holder is None


def test_a_second_holder_waits_for_the_first(path):
    entered = Event()

    def enter():
        with exclusive_lock(path):
            entered.set()

    thread = Thread(target=enter)
    with exclusive_lock(path):
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_in_a_sentence(path, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(NoLocksError, match="has no locks"), exclusive_lock(path):
        pytest.fail("it was held")
