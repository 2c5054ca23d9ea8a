"""A compiled run ends as a plain one, can be recorded, and loads compiled code of this user alone.

Compiling takes a minute, in processes of their own, where the checks of shapes, which a compiler
cannot read, are not made.
"""

import multiprocessing
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
import torch

from ssl_pipeline.errors import UserError
from ssl_pipeline.training.compile_cache import CACHE_VARIABLE, use_private_compile_cache
from ssl_pipeline.training.metrics_log import read_metrics
from tests.training.small_trainer import small_trainer, trained_weights


def train(folder, output, compiled):
    """Leave the weights behind, and compiled code with them: that of a killed run may be torn."""
    os.environ.pop(CACHE_VARIABLE, None)
    os.environ["TMPDIR"] = str(folder)
    weights = trained_weights(small_trainer(folder, output, compile=compiled))
    torch.save(weights, folder / "end.pt")
    if compiled:
        compiled_code = Path(tempfile.gettempdir()) / f"torch-compiled-{os.geteuid()}"
        assert os.environ[CACHE_VARIABLE] == str(compiled_code)


@pytest.mark.kill
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with g++, which is not here")
def test_a_compiled_run_ends_as_a_plain_one(study, tmp_path):
    ends = []
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        folder.mkdir()
        arguments = (folder, study.folder, compiled)
        process = multiprocessing.get_context("spawn").Process(target=train, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == 0
        ends.append(torch.load(folder / "end.pt"))
        assert "gradient_ratio" in read_metrics(folder / "metrics.jsonl")[-1]
    assert (ends[1] - ends[0]).norm() < 1e-4 * ends[0].norm()


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder for temporary files, and no choice of the user where compiled code lies."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, "")  # so that what the code sets is undone
    monkeypatch.delenv(CACHE_VARIABLE)
    return tmp_path


def test_compiled_code_lies_where_no_other_user_can_put_any(temporary, open_umask):
    use_private_compile_cache()
    folder = Path(os.environ[CACHE_VARIABLE])
    assert folder.parent == temporary and stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_of_compiled_code_that_another_user_may_have_made_is_refused(temporary):
    (temporary / f"torch-compiled-{os.geteuid()}").mkdir(mode=0o755)
    with pytest.raises(UserError, match="Other users can read"):
        use_private_compile_cache()
