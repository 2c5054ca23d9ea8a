"""Variables that are empty or odd are taken as not set, or named in one sentence."""

import pytest

from cluster import node_steps
from ssl_pipeline.environment import read_number
from ssl_pipeline.errors import UserError
from ssl_pipeline.io import lease
from ssl_pipeline.training.compute import select_compute
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.ranks import RankInfo

NUMBERS = ("OMP_NUM_THREADS", "WORLD_SIZE", "SSL_PIPELINE_RANK_TIMEOUT_S", "SLURM_CPUS_PER_TASK")
OF_A_RANK = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_what_is_set_to_nothing_is_not_set(monkeypatch):
    for name in (*NUMBERS, "SLURM_JOB_ID", "SLURM_STEP_NODELIST", lease.LEASE_VARIABLE):
        monkeypatch.setenv(name, "")
    assert RankInfo.from_environment() == RankInfo()
    assert select_compute(Training(precision="fp32"), RankInfo()).threads > 0
    assert node_steps.allocated_resources(4, 8.0) == (4, 8.0)
    assert node_steps.other_nodes() == [] and not lease.is_held()


@pytest.mark.parametrize("text", ["abc", "-1", "2.5", "nan", "4 cores"])
def test_what_is_no_number_is_named(text, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    with pytest.raises(UserError, match=f"OMP_NUM_THREADS is '{text}', which is no whole number"):
        select_compute(Training(precision="fp32"), RankInfo())


@pytest.mark.parametrize("text", ["nan", "0", "-5", "1 min"])
def test_a_number_of_seconds_is_a_number_above_its_smallest(text, monkeypatch):
    monkeypatch.setenv("SOME_S", text)
    with pytest.raises(UserError, match=r"which is no number from 1\.0 on: correct it, or unset"):
        read_number("SOME_S", 600.0, 1.0)
    monkeypatch.setenv("SOME_S", " 2.5 ")
    assert read_number("SOME_S", 600.0, 1.0) == 2.5


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("RANK", "one", "RANK is 'one'"),
        ("RANK", "2", "ranks count from 0 to 1"),
        ("MASTER_PORT", "tcp", "MASTER_PORT is 'tcp'"),
        ("MASTER_PORT", "65536", "ports end at 65535"),
    ],
)
def test_variables_of_a_rank_that_fit_no_rank_are_named(name, text, said, monkeypatch):
    for key, value in {**OF_A_RANK, "MASTER_PORT": "29500", name: text}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match=said):
        RankInfo.from_environment()


def test_variables_of_a_job_where_slurm_is_not_are_no_further_nodes(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node1")
    assert node_steps.other_nodes() == []
