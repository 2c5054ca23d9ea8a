"""Break a real SLURM in every way that clusters do: the encoder ends as the undisturbed one."""

import os
import shutil
import signal
import site
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.slurm.conftest import by_hand, edit, refusal_message
from tests.slurm.slurm_harness import (
    ROOT,
    StudyCopy,
    children,
    end_daemon,
    has_been_sent,
    is_gone,
    kill_launcher,
    slurm,
    start_daemon,
    wait_for_launcher,
    wait_until,
    wake,
)

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(420)]


def submit_preempting_job(node):
    """A job that takes a whole node from partitions below."""
    slurm("sbatch", "-p", "high", "-w", node, "-c4", "-o", "/dev/null", "--wrap", "sleep 3")


def is_equal_to_undisturbed(work, undisturbed):
    rows = work.rows()
    assert rows == sorted(set(rows)), "a step is logged once"
    return work.weights() == undisturbed


def test_undisturbed(raw, undisturbed, tmp_path, outcome):
    """Nothing, through snakemake --profile slurm."""
    work = StudyCopy(raw, tmp_path)
    wait_for_launcher(work.snakemake())
    assert is_equal_to_undisturbed(work, undisturbed)
    submit, start = slurm("sacct", "-nXP", "-j", work.job, "-o", "submit,start").split("|")
    waited = datetime.fromisoformat(start) - datetime.fromisoformat(submit)
    outcome(f"equal; {waited.seconds} s from submission to start")


@pytest.mark.parametrize("partition", ["low", "main"])
def test_preemption(work, undisturbed, outcome, partition):
    """Preempted by a higher partition."""
    work.write_cluster_file(partition=partition)
    launcher = work.launch()
    work.wait_for_training()
    submit_preempting_job(work.node)
    wait_for_launcher(launcher)
    assert work.attempt >= 1
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome(f"{'with' if partition == 'low' else 'without'} grace: requeued, equal")


def test_notice_in_the_first_second(work, undisturbed, outcome):
    """Signalled to stop while Python still imports."""
    launcher = work.launch()
    work.stage_process()
    slurm("scancel", "--signal=USR2", work.job)
    wait_for_launcher(launcher)
    assert work.attempt == 1
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("notice kept until heard, requeued, equal")


def test_notice_with_workers(raw, undisturbed, tmp_path, outcome):
    """Signalled to stop while Dask workers preprocess."""
    work = StudyCopy(raw, tmp_path)
    work.stage = "preprocess"
    edit(work.study, "dask: {workers: 1}", "dask: {workers: 2}")
    by_hand(work.study, "inventory")
    launcher = work.launch()
    task = work.stage_process()
    wait_until(lambda: len(children(task)) > 1, "workers have started")
    slurm("scancel", "--signal=USR2", work.job)
    wait_for_launcher(launcher)
    assert work.attempt == 1
    by_hand(work.study, "pretrain")
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("workers do not hear it, requeued, equal")


def test_requeue(work, undisturbed, outcome):
    """Requeued by hand with scontrol."""
    launcher = work.launch()
    work.wait_for_training()
    slurm("scontrol", "requeue", work.job)
    wait_for_launcher(launcher)
    assert work.attempt == 1
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("checkpoint on TERM, equal")


def test_time_out(work, undisturbed, outcome):
    """Time limit of 1 min, in which the disk hangs until the notice."""
    work.write_cluster_file(time_min=1, signal_before_end_s=20)
    launcher = work.launch()
    work.wait_for_training()
    task = work.stage_process()
    os.kill(task, signal.SIGSTOP)
    wait_until(lambda: has_been_sent(task, signal.SIGUSR2), "SLURM tells of the time limit")
    wake(task)
    wait_for_launcher(launcher)
    assert work.attempt >= 1
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("checkpoint, requeued, equal")


def test_lost_node(work, undisturbed, outcome):
    """Node lost, and its processes wake up once the next attempt writes."""
    launcher = work.launch()
    work.wait_for_training()
    task, node = work.stage_process(), work.node
    os.kill(task, signal.SIGSTOP)
    end_daemon(f"slurmd-{node}")
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    wait_until(lambda: work.attempt == 1, "the second attempt takes the lease")
    wake(task)
    wait_until(lambda: is_gone(task), "the first attempt ends")
    assert "Attempt 0 of job" in work.log and "was given up" in work.log
    wait_for_launcher(launcher)
    start_daemon("slurmd", "-N", node)
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("older attempt stopped by its fence, equal")


def test_controller_away(work, undisturbed, outcome):
    """Controller away for 15 s of a run."""
    launcher = work.launch()
    work.wait_for_training()
    end_daemon("slurmctld", signal.SIGTERM)
    time.sleep(15)
    start_daemon("slurmctld")
    wait_for_launcher(launcher)
    assert work.attempt == 0
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("launcher waited, equal")


def test_controller_away_at_submission(work, undisturbed, outcome):
    """Controller away when a job is to be submitted."""
    end_daemon("slurmctld", signal.SIGTERM)
    launcher = work.launch()
    time.sleep(5)
    start_daemon("slurmctld")
    wait_for_launcher(launcher)
    assert len(work.jobs()) == 1
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("launcher waited, one job, equal")


def test_killed_snakemake(work, undisturbed, outcome):
    """Snakemake and its launcher killed."""
    first = work.snakemake()
    work.wait_for_training()
    kill_launcher(first)
    first.wait()
    said = wait_for_launcher(work.snakemake())
    assert f"attached to job {work.job}" in said and len(work.jobs()) == 1
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("attached, one job, equal")


def test_lost_record(work, undisturbed, outcome):
    """Launcher killed and the record of its job lost."""
    first = work.launch()
    work.wait_for_training()
    kill_launcher(first)
    first.wait()
    (work.folder / "out/jobs/pretrain/job.json").unlink()
    assert "attached to job" in wait_for_launcher(work.launch())
    assert len(work.jobs()) == 1
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("found by its name, one job, equal")


def test_two_launchers(work, undisturbed, outcome):
    """Two launchers at once."""
    first, second = work.launch(), work.launch()
    said = wait_for_launcher(first) + wait_for_launcher(second)
    assert said.count("submitted job") == said.count("attached to job") == 1
    assert len(work.jobs()) == 1
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("one job, both followed it, equal")


def test_interrupted(work, undisturbed, outcome):
    """Ctrl-C in Snakemake."""
    first = work.snakemake()
    work.wait_for_training()
    job, trained = work.job, len(work.rows())
    kill_launcher(first, signal.SIGINT)
    first.wait(60)
    wait_until(lambda: not slurm("squeue", "-h", "-j", job), "the job has ended")
    wait_until(
        lambda: "run the same command again" in first.said.read_text(), "it says how to go on"
    )
    wait_for_launcher(work.snakemake())
    assert len(work.jobs()) == 2
    assert f"Pretraining: {trained}" not in work.log and "Pretraining: 0/" not in work.log
    assert is_equal_to_undisturbed(work, undisturbed)
    by_hand(work.study, "clean --yes")
    jobs = work.folder / "out/jobs/pretrain"
    assert [path.name for path in jobs.glob("[0-9]*")] == [work.job]
    assert len(list(jobs.glob(".submission*"))) == 1
    outcome("checkpoint, cancelled, gone on with, equal; cleaned of the first job")


def test_detached(work, undisturbed, outcome):
    """Ctrl-C with on_interrupt: detach."""
    work.write_cluster_file(on_interrupt="detach")
    first = work.launch()
    work.wait_for_training()
    task = work.stage_process()
    os.kill(task, signal.SIGSTOP)  # or it might end before the commands below have started
    kill_launcher(first, signal.SIGINT)
    assert f"job {work.job} runs on" in wait_for_launcher(first, code=3)
    assert work.is_running()
    assert "RUNNING" in by_hand(work.study, "status")
    assert f"Job {work.job} of pretrain is in SLURM's queue" in refusal_message(
        work.study, "clean --yes"
    )
    second = work.launch()
    wait_until(lambda: "attached to job" in second.said.read_text(), "it attaches")
    wake(task)
    wait_for_launcher(second)
    assert f"Attempt 0 of job {work.job}" in by_hand(work.study, "logs pretrain")
    assert len(work.jobs()) == 1
    assert is_equal_to_undisturbed(work, undisturbed)
    by_hand(work.study, "clean --all --yes")
    assert not (work.folder / "out").exists()
    outcome("job ran on, attached, equal; cleaned only once it had ended")


def test_failing_job(work, undisturbed, outcome):
    """Job that fails: its volumes are gone."""
    volumes = work.folder / "out/preprocess/volumes"
    volumes.rename(work.folder / "away")
    launcher = work.launch()
    launcher.wait(120)
    said = wait_for_launcher(launcher, code=launcher.returncode)
    assert launcher.returncode in (1, 2)
    assert f"job {work.job}" in said and "SLURM says FAILED" in said and "_log.out" in said
    (work.folder / "away").rename(volumes)
    wait_for_launcher(work.launch())
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("one sentence with state, code, log; repaired, equal")


def test_no_accounting(work, outcome):
    """Job that fails on a cluster without accounting."""
    sacct = work.folder / "bin" / "sacct"
    sacct.parent.mkdir()
    sacct.write_text("#!/bin/sh\necho Slurm accounting storage is disabled >&2\nexit 1\n")
    sacct.chmod(0o755)
    (work.folder / "out/preprocess/volumes").rename(work.folder / "away")
    launcher = work.launch(PATH=f"{sacct.parent}:{os.environ['PATH']}")
    launcher.wait(120)
    said = wait_for_launcher(launcher, code=launcher.returncode)
    assert f"SLURM says FAILED, exit code {launcher.returncode})" in said
    outcome("the controller's own memory is asked")


def test_out_of_memory(work, undisturbed, outcome):
    """Job that needs more memory than it asked for."""
    work.write_cluster_file(mem_gb=0.2)
    said = wait_for_launcher(work.launch(), code=2)
    assert "ran out of memory, raise mem_gb from 0.2" in said
    work.write_cluster_file()
    wait_for_launcher(work.launch())
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("one sentence; with more memory equal")


def test_volumes_on_the_nodes_own_disk(work, undisturbed, outcome):
    """Volumes copied to the node's disk, requeued by hand."""
    disk = work.folder / "disk"
    work.write_cluster_file(
        setup=[f"export NODE_DISK={disk}"], pretrain={"scratch_dir": "$NODE_DISK"}
    )
    launcher = work.launch()
    work.wait_for_training()
    assert (disk / f"ssl-pipeline-{work.job}/volumes").is_dir()
    slurm("scontrol", "requeue", work.job)
    wait_for_launcher(launcher)
    assert work.log.count(f"copied to {disk}") == 2
    assert not list(disk.iterdir())
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("copied by each attempt, removed at its end, equal")


def test_packed_environment(work, undisturbed, outcome):
    """Environment of one file, unpacked on the node."""
    envs, venv, disk = ROOT / "workflows/envs", work.folder / "venv", work.folder / "disk"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    ours = venv / f"lib/{Path(site.getsitepackages()[0]).parent.name}/site-packages/ours.pth"
    ours.write_text(f"{site.getsitepackages()[0]}\n{ROOT}\n")
    archive = work.folder / "env.tar.zst"
    subprocess.run([envs / "pack.sh", venv, archive], check=True)
    shutil.rmtree(venv)
    unpack = f"{envs}/unpack.sh {archive} $NODE_DISK/env"
    each = "srun --nodes=$SLURM_NNODES --ntasks=$SLURM_NNODES --ntasks-per-node=1"
    setup = [f"export NODE_DISK={disk}", f"{each} {unpack}"]
    work.write_cluster_file(setup=setup, python="$NODE_DISK/env/bin/python")
    launcher = work.launch()
    command = (Path("/proc") / str(work.stage_process()) / "cmdline").read_text()
    assert command.startswith(f"{disk}/env/bin/python")
    wait_for_launcher(launcher)
    assert is_equal_to_undisturbed(work, undisturbed)
    outcome("the node's own Python, equal")


def test_two_studies(prepared, undisturbed, tmp_path, outcome):
    """Two studies at the same time."""
    works = [StudyCopy(prepared, tmp_path / name) for name in ("one", "two")]
    launchers = [work.snakemake() for work in works]
    for work, launcher in zip(works, launchers, strict=True):
        wait_for_launcher(launcher)
        assert is_equal_to_undisturbed(work, undisturbed)
    assert works[0].job != works[1].job
    outcome("two jobs, both equal")


def test_changed_inputs(work, undisturbed, outcome):
    """Study changed while its job runs, and changed back."""
    first = work.launch()
    work.wait_for_training()
    edit(work.study, "crop_voxels: [16, 16, 16]", "crop_voxels: [16, 16, 8]")
    second = work.launch()
    assert f"job {work.job}" in wait_for_launcher(first, code=3)
    assert "works on earlier inputs and is asked to stop" in wait_for_launcher(second)
    changed = work.weights()
    edit(work.study, "crop_voxels: [16, 16, 8]", "crop_voxels: [16, 16, 16]")
    shutil.rmtree(work.folder / "out/jobs/pretrain")
    wait_for_launcher(work.launch())
    assert changed != undisturbed and work.weights() == undisturbed
    outcome("old job stopped, no record answers, equal")
