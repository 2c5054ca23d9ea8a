"""The node cache: the same bytes, shared by the tasks of a job, removed with the last."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from ssl_pipeline.io.node_cache import cached_folder, job_cache
from stages import preprocess

TASK = """
import sys
from pathlib import Path
from ssl_pipeline.io.node_cache import cached_folder, job_cache
with job_cache(sys.argv[1], sys.argv[2]):
    print(cached_folder(Path(sys.argv[3]), ["a", "b/c"]), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def files(tmp_path):
    """A folder of two files on the shared disk."""
    folder = tmp_path / "shared/volumes"
    (folder / "b").mkdir(parents=True)
    (folder / "a").write_bytes(b"one")
    (folder / "b/c").write_bytes(b"another")
    return folder


@pytest.fixture
def disk(tmp_path):
    return tmp_path / "disk"


@pytest.fixture
def start(disk, files):
    """Starts a task of a job, which has its copies when this returns and holds them until ended."""
    tasks = []

    def task(job):
        command = [sys.executable, "-c", TASK, str(disk), job, str(files)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        tasks.append(subprocess.Popen(command, **pipes))
        lines = iter(tasks[-1].stdout.readline, "")
        return tasks[-1], next(line.strip() for line in lines if "copied" not in line)

    yield task
    for process in tasks:
        process.kill()
        process.communicate()


def test_crops_are_the_same_from_copies(study, catalog, reader, tmp_path):
    with job_cache(str(tmp_path / "disk"), "7"):
        copies = preprocess.crop_reader(study, catalog, catalog.entries)
        assert copies.folder == tmp_path / "disk/ssl-pipeline-7/volumes"
        for entry in catalog.entries:
            assert np.array_equal(copies.read_volume(entry.id), reader.read_volume(entry.id))
    assert not list((tmp_path / "disk").iterdir())
    assert preprocess.crop_reader(study, catalog, catalog.entries).folder == reader.folder


def test_tasks_of_a_node_share_copies_and_the_last_removes_them(start, disk, files):
    first, copies = start("7")
    second, same = start("7")
    assert copies == same == str(disk / "ssl-pipeline-7/volumes")
    first.communicate()
    assert (disk / "ssl-pipeline-7/volumes/b/c").read_bytes() == b"another"
    second.communicate()
    assert not list(disk.iterdir())


def test_what_a_killed_job_left_is_removed_by_the_next_and_what_is_held_is_not(start, disk):
    killed, _ = start("7")
    alive, _ = start("8")
    killed.kill()
    killed.wait()
    assert {path.name for path in disk.iterdir()} == {"ssl-pipeline-7", "ssl-pipeline-8"}
    start("9")
    assert {path.name for path in disk.iterdir()} == {"ssl-pipeline-8", "ssl-pipeline-9"}
    assert alive.poll() is None


def test_a_copy_of_another_size_is_copied_again(disk, files):
    with job_cache(str(disk), "7"):
        copies = cached_folder(files, ["a", "b/c"])
        (copies / "a").write_bytes(b"o")
        assert (cached_folder(files, ["a", "b/c"]) / "a").read_bytes() == b"one"


def test_files_that_do_not_fit_are_not_copied(disk, files, capsys):
    os.truncate(files / "a", 2**42)  # 4 TiB, of which no byte is on the disk
    with job_cache(str(disk), "7"):
        assert cached_folder(files, ["a", "b/c"]) == files
    assert "it has 4.0 TiB, and" in capsys.readouterr().out


def test_without_a_local_disk_nothing_is_copied(files, capsys):
    for where in ("$NOWHERE/x", "/proc/none"):
        with job_cache(where, "7"):
            assert cached_folder(files, ["a", "b/c"]) == files
        assert f"Nothing is copied to {where}" in capsys.readouterr().out


def test_a_folder_that_somebody_else_may_have_made_is_not_used(disk, files, capsys, open_umask):
    made = disk / "ssl-pipeline-7"
    made.mkdir(parents=True)
    with job_cache(str(disk), "7"):
        assert cached_folder(files, ["a", "b/c"]) == files
    assert f"Nothing is copied to {disk}: Other users can" in capsys.readouterr().out
    with job_cache(str(disk), "8"):
        assert cached_folder(files, ["a", "b/c"]) == disk / "ssl-pipeline-8/volumes"
        assert stat.S_IMODE((disk / "ssl-pipeline-8").stat().st_mode) == 0o700
    assert list(disk.iterdir()) == [made]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_of_another_user_is_not_followed(disk, files, tmp_path, capsys):
    disk.mkdir()
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    (mine / ".job.lock").write_text("kept")
    (disk / "ssl-pipeline-7").symlink_to(mine)
    os.chown(disk / "ssl-pipeline-7", 65534, 65534, follow_symlinks=False)
    with job_cache(str(disk), "7"):
        assert cached_folder(files, ["a", "b/c"]) == files
    assert "belongs to another user" in capsys.readouterr().out
    assert (mine / ".job.lock").read_text() == "kept"
