"""Atomic writes: a file is complete or absent, whenever the writer is killed."""

import os
import signal
import subprocess
import sys

import pytest

from ssl_pipeline.io.atomic import (
    atomic_write,
    remove_temporaries,
    sha256_json,
    write_json,
)
from tests.conftest import read_json


def test_a_failing_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_number_that_json_does_not_have_is_not_written(number, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"a": [number]})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_replaces_a_folder(tmp_path):
    for content in ("old", "new"):
        with atomic_write(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).touch()
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["new"]


def test_a_killed_writer_leaves_no_file_of_that_name(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from ssl_pipeline.io.atomic import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as t:\n"
        "    t.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    path = tmp_path / "file"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_hashes_do_not_depend_on_the_order_of_keys():
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
