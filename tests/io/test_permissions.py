"""Other accounts can change nothing, look into nothing private, and run no code as the user."""

import os
import stat
from pickle import UnpicklingError

import pytest
import torch

from cluster.config import JobResources
from cluster.launch import StageJob, launch_job
from ssl_pipeline.errors import UserError
from ssl_pipeline.init_from.weights_file import read_tensors
from ssl_pipeline.io.permissions import make_private_folder, refuse_open_parent
from ssl_pipeline.training.checkpoint import unpack_state
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from stages.core.process import run_process
from stages.core.runner import run_stage
from stages.core.study_file import load_study

NOBODY = 65534


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def work():
    raise AssertionError("no job is submitted here")


@pytest.fixture
def stage_job(tmp_path, monkeypatch):
    """A job of a stage, on a machine without SLURM."""
    monkeypatch.setenv("PATH", "")
    folder = tmp_path / "out/jobs/pretrain"
    return StageJob("pretrain", folder, tmp_path / "out/pretrain", "key", work, JobResources())


def test_a_private_folder_is_for_its_owner_alone_whatever_the_umask(tmp_path, open_umask):
    make_private_folder(tmp_path / "private")
    assert mode(tmp_path / "private") == 0o700
    make_private_folder(tmp_path / "private")
    for open_mode in (0o750, 0o770, 0o707, 0o701):
        (tmp_path / "private").chmod(open_mode)
        with pytest.raises(UserError, match=f"chmod 700 {tmp_path}/private"):
            make_private_folder(tmp_path / "private")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_private_folder_of_another_user_is_refused(tmp_path):
    make_private_folder(tmp_path / "private")
    os.chown(tmp_path / "private", NOBODY, NOBODY)
    with pytest.raises(UserError, match="belongs to another user"):
        make_private_folder(tmp_path / "private")


def test_a_folder_below_one_in_which_every_user_can_rename_it_is_refused(tmp_path):
    private = tmp_path / "scratch/out/jobs"
    make_private_folder(private)
    for refused_mode, accepted_mode in ((0o777, 0o1777), (0o757, 0o775)):
        (tmp_path / "scratch").chmod(refused_mode)
        with pytest.raises(UserError, match=f"chmod o-w {tmp_path}/scratch"):
            refuse_open_parent(private)
        (tmp_path / "scratch").chmod(accepted_mode)
        refuse_open_parent(private)


def test_no_salt_is_made_in_a_folder_that_others_can_look_into(tmp_path):
    (tmp_path / "private").mkdir(mode=0o755)
    with pytest.raises(UserError, match="Other users can read"):
        PseudonymStore(tmp_path / "private", "tiny", tmp_path / "out").open("")
    assert not list((tmp_path / "private").iterdir())


class MakesFolder:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_file_of_weights_from_others_runs_no_code(tmp_path):
    torch.save({"weight": MakesFolder(tmp_path / "ran")}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="cannot be read as weights alone"):
        read_tensors(tmp_path / "weights.pt")
    with pytest.raises(UnpicklingError):
        unpack_state((tmp_path / "weights.pt").read_bytes())
    assert not (tmp_path / "ran").exists()


def test_the_folders_of_jobs_are_private_for_nodes_run_what_lies_there(stage_job, open_umask):
    (stage_job.folder.parents[1]).mkdir(mode=0o755)
    with pytest.raises(UserError, match="There is no squeue here"):
        launch_job(stage_job)
    assert [mode(each) for each in (stage_job.folder, stage_job.folder.parent)] == [0o700, 0o700]


@pytest.mark.parametrize("which", [0, 1])
def test_a_job_is_refused_where_others_can_write_what_its_node_runs(stage_job, which):
    make_private_folder(stage_job.folder.parent)
    make_private_folder(stage_job.folder)
    opened = [stage_job.folder, stage_job.folder.parent][which]
    opened.chmod(0o770)
    with pytest.raises(UserError, match=f"chmod 700 {opened}`"):
        launch_job(stage_job)


def test_no_other_user_can_change_what_a_command_writes(study_file, open_umask):
    study = load_study(study_file)
    assert run_process("inventory", lambda: run_stage("inventory", study, {}) or 0) == 0
    written = [study.folder, *study.folder.rglob("*")]
    assert len(written) > 5
    assert [path for path in written if mode(path) & 0o022] == []
    private = study.pseudonyms.private_folder
    kept = [private, *private.rglob("*")]
    assert {"salt", "origins.parquet", "file_hashes.json"} <= {path.name for path in kept}
    assert [path for path in kept if mode(path) & 0o077] == []
