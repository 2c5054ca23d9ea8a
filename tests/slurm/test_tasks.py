"""Several tasks of one job find each other, on as many nodes as were asked for."""

import pytest

from cluster.config import Resources
from cluster.launch import Task, launch, record
from tests.slurm.lab import Work, finished, slurm
from tests.slurm.meeting import meet

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


def test_two_nodes_with_two_tasks_each(tmp_path, outcome):
    """Two nodes with two tasks each."""
    asked = Resources(nodes=2, tasks_per_node=2, time_min=5, mem_gb=3)
    jobs = tmp_path / "jobs" / "meeting"
    task = Task("meeting", jobs, tmp_path / "out", "key", meet, asked, on_ranks=True)
    assert launch(task) == 0
    job = record(jobs)["job"]
    said = [(jobs / job / f"{job}_{rank}_log.out").read_text() for rank in range(4)]
    for rank, text in enumerate(said):
        assert f"met {rank} 4 {rank % 2} 6" in text
    assert len({line for text in said for line in text.splitlines() if "Attempt 0" in line}) == 2
    nodes = slurm("sacct", "-nXP", "-j", job, "-o", "nodelist")
    outcome(f"4 tasks met on {nodes}")


def test_pretraining_on_two_nodes_with_two_tasks_each(prepared, tmp_path, outcome):
    """Requeued while it pretrains on two nodes with two tasks each."""
    quiet, broken = (Work(prepared, tmp_path / name) for name in ("quiet", "broken"))
    for work in (quiet, broken):
        work.ask(pretrain={"nodes": 2, "tasks_per_node": 2})
    finished(quiet.door())
    launcher = broken.door()
    broken.until_training()
    slurm("scontrol", "requeue", broken.job)
    finished(launcher)
    assert broken.attempt == 1
    assert broken.weights() == quiet.weights()
    rows = broken.rows()
    assert rows == sorted(set(rows))
    outcome("one checkpoint, the same order of samples, equal")
