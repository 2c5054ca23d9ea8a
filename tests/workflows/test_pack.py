"""A virtual environment packed into one file works where it is unpacked, without the first one."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ENVS = Path(__file__).resolve().parent.parent.parent / "workflows/envs"
pytestmark = pytest.mark.skipif(shutil.which("zstd") is None, reason="there is no zstd here")


def run(*command, code=0):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout.strip() + done.stderr.strip()


@pytest.fixture
def archive(tmp_path):
    """A packed environment, whose first place is no more."""
    venv = tmp_path / "first/.venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    script = venv / "bin/where"
    script.write_text(f"#!{venv}/bin/python\nimport sys; print(sys.prefix)\n")
    script.chmod(0o755)
    packed = tmp_path / "build/env.tar.zst"
    assert "are one of" in run(ENVS / "pack.sh", venv, packed)
    shutil.rmtree(venv)
    return packed


def test_it_works_where_it_is_unpacked(archive, tmp_path):
    folder = tmp_path / "node/env"
    run(ENVS / "unpack.sh", archive, folder)
    assert run(folder / "bin/where") == str(folder)
    activated = f"source {folder}/bin/activate; python -c 'import sys; print(sys.prefix)'"
    assert run("bash", "-c", activated) == str(folder)
    before = (folder / "bin/where").stat().st_ctime_ns
    run(ENVS / "unpack.sh", archive, folder)
    assert (folder / "bin/where").stat().st_ctime_ns == before, "nothing to do twice"
    assert {path.name for path in folder.parent.iterdir()} == {"env", "env.lock"}


def test_it_works_below_a_folder_whose_name_has_spaces_and_marks_of_patterns(archive, tmp_path):
    folder = tmp_path / "a | node & its disk/env"
    run(ENVS / "unpack.sh", archive, folder)
    activated = f"source {shlex.quote(f'{folder}/bin/activate')}; echo $VIRTUAL_ENV"
    assert run("bash", "-c", activated) == str(folder)


def test_a_folder_of_something_else_is_left_alone(archive, tmp_path):
    (tmp_path / "mine").mkdir()
    said = run(ENVS / "unpack.sh", archive, tmp_path / "mine", code=2)
    assert "is not what" in said and "name another folder" in said
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_another_user_has_unpacked_is_not_run(archive, tmp_path):
    run(ENVS / "unpack.sh", archive, tmp_path / "env")
    os.chown(tmp_path / "env", 65534, 65534)
    said = run(ENVS / "unpack.sh", archive, tmp_path / "env", code=2)
    assert "belongs to another user" in said
