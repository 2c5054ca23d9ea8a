"""A compiled run ends as a plain one, can be recorded, and loads compiled code of this user alone.

Compiling takes a minute, in processes of their own, where the checks of shapes, which a compiler
cannot read, are not made.
"""

import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_pipeline.errors import UserError
from ssl_pipeline.training.compile_cache import (
    CACHE_VARIABLE,
    HEADERS_VARIABLE,
    use_private_compile_cache,
)
from ssl_pipeline.training.metrics_log import read_metrics
from tests.training.small_trainer import small_trainer, trained_weights


def train(folder, output, compiled):
    """Leave the weights behind, and compiled code with them."""
    os.environ.pop(CACHE_VARIABLE, None)
    os.environ["TMPDIR"] = str(folder)
    weights = trained_weights(small_trainer(folder, output, compile=compiled))
    torch.save(weights, folder / "end.pt")
    if compiled:
        compiled_code = Path(tempfile.gettempdir()) / f"torch-compiled-{os.geteuid()}"
        assert os.environ[CACHE_VARIABLE] == str(compiled_code)


def train_in_a_process(folder, *arguments):
    """The weights that a training in a process of its own ends with."""
    folder.mkdir(exist_ok=True)
    process = multiprocessing.get_context("spawn").Process(target=train, args=(folder, *arguments))
    process.start()
    process.join()
    assert process.exitcode == 0
    return torch.load(folder / "end.pt")


@pytest.mark.kill
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with g++, which is not here")
def test_a_compiled_run_ends_as_a_plain_one_also_after_a_kill_has_torn_its_code(study, tmp_path):
    plain = train_in_a_process(tmp_path / "plain", study.folder, False)
    folder = tmp_path / "compiled"
    for _ in range(2):
        compiled = train_in_a_process(folder, study.folder, True)
        assert "gradient_ratio" in read_metrics(folder / "metrics.jsonl")[-1]
        assert (compiled - plain).norm() < 1e-4 * plain.norm()
        torn, *_ = sorted((folder / f"torch-compiled-{os.geteuid()}").rglob("*.so"))
        os.truncate(torn, torn.stat().st_size // 2)  # one, for each takes long to compile again
        for left in (*folder.glob("metrics*"), *folder.glob("checkpoints/*"), folder / "end.pt"):
            left.unlink()


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder for temporary files, and no choice of the user where compiled code lies."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in (CACHE_VARIABLE, HEADERS_VARIABLE):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    return tmp_path


def test_no_header_is_compiled_in_advance_unless_a_user_asks_for_it(temporary, monkeypatch):
    use_private_compile_cache()
    code = "import torch._inductor.config as c; print(c.cpp_cache_precompile_headers)"
    asked = [sys.executable, "-c", code]
    assert subprocess.run(asked, capture_output=True, text=True).stdout == "False\n"
    monkeypatch.setenv(HEADERS_VARIABLE, "1")
    use_private_compile_cache()
    assert os.environ[HEADERS_VARIABLE] == "1"


def test_compiled_code_lies_where_no_other_user_can_put_any(temporary, open_umask):
    use_private_compile_cache()
    folder = Path(os.environ[CACHE_VARIABLE])
    assert folder.parent == temporary and stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("share", [0, 0.0005, 0.5])
def test_torn_code_is_removed_and_whole_code_stays(temporary, share):
    folder = temporary / f"torch-compiled-{os.geteuid()}/ab"
    folder.parent.mkdir(mode=0o700)
    folder.mkdir()
    whole = next(Path(np.__file__).parent.glob("linalg/*.so"))
    for name in ("whole.so", "torn.so", "torn.o"):
        shutil.copy(whole, folder / name)
    for name in ("torn.so", "torn.o"):
        os.truncate(folder / name, int(whole.stat().st_size * share))
    (folder / "code.cpp").touch()
    use_private_compile_cache()
    assert {path.name for path in folder.iterdir()} == {"whole.so", "code.cpp"}


def test_code_that_another_process_may_be_writing_stays(temporary):
    use_private_compile_cache()
    folder = Path(os.environ[CACHE_VARIABLE])
    (folder / "unfinished.so").touch()
    use_private_compile_cache()
    assert (folder / "unfinished.so").exists()


def test_a_folder_of_compiled_code_that_another_user_may_have_made_is_refused(temporary):
    (temporary / f"torch-compiled-{os.geteuid()}").mkdir(mode=0o755)
    with pytest.raises(UserError, match="Other users can read"):
        use_private_compile_cache()
