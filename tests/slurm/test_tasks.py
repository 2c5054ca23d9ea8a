"""Several tasks of one job find each other, on as many nodes as were asked for."""

import pytest

from cluster.config import JobResources
from cluster.launch import StageJob, launch_job, read_job_record
from tests.slurm.rendezvous import sum_ranks
from tests.slurm.slurm_harness import StudyCopy, slurm, wait_for_launcher

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


def test_two_nodes_with_two_tasks_each(tmp_path, outcome):
    """Two nodes with two tasks each."""
    asked = JobResources(nodes=2, tasks_per_node=2, time_min=5, mem_gb=3)
    jobs = tmp_path / "jobs" / "meeting"
    task = StageJob("meeting", jobs, tmp_path / "out", "key", sum_ranks, asked, is_distributed=True)
    assert launch_job(task) == 0
    job = read_job_record(jobs)["job"]
    said = [(jobs / job / f"{job}_{rank}_log.out").read_text() for rank in range(4)]
    for rank, text in enumerate(said):
        assert f"met {rank} 4 {rank % 2} 6" in text
    assert len({line for text in said for line in text.splitlines() if "Attempt 0" in line}) == 2
    nodes = slurm("sacct", "-nXP", "-j", job, "-o", "nodelist")
    outcome(f"4 tasks met on {nodes}")


def test_pretraining_on_two_nodes_with_two_tasks_each(prepared, tmp_path, outcome):
    """Requeued while it pretrains on two nodes with two tasks each."""
    quiet, broken = (StudyCopy(prepared, tmp_path / name) for name in ("quiet", "broken"))
    for work in (quiet, broken):
        work.write_cluster_file(pretrain={"nodes": 2, "tasks_per_node": 2})
    wait_for_launcher(quiet.launch())
    launcher = broken.launch()
    broken.wait_for_training()
    slurm("scontrol", "requeue", broken.job)
    wait_for_launcher(launcher)
    assert broken.attempt == 1
    assert broken.weights() == quiet.weights()
    rows = broken.rows()
    assert rows == sorted(set(rows))
    outcome("one checkpoint, the same order of samples, equal")
