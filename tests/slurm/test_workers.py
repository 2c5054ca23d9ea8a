"""Preprocessing on several nodes, whose workers and nodes are killed: the store ends the same."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest
from distributed import Client, Security

from cluster.credentials import new_credentials
from ssl_pipeline.io.atomic import sha256_file
from tests.conftest import write_scans, write_study
from tests.slurm.conftest import by_hand, edit
from tests.slurm.slurm_harness import (
    StudyCopy,
    is_gone,
    lose_node,
    node_of,
    processes,
    slurm,
    start_daemon,
    wait_for_launcher,
    wait_until,
)

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]
SCANS = 18


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A study whose scans take some time each to prepare, with its inventory."""
    folder = tmp_path_factory.mktemp("scans")
    study = write_study(folder)
    write_scans(folder / "raw", SCANS)
    edit(study, "foreground: all", "foreground: all, mr: {spacing_mm: [0.4, 0.4, 0.4]}")
    by_hand(study, "inventory")
    return folder


@pytest.fixture(scope="module")
def alone(scans, tmp_path_factory):
    """The store of a run without SLURM, by one process."""
    work = StudyCopy(scans, tmp_path_factory.mktemp("alone"))
    by_hand(work.study, "preprocess")
    return store(work)


@pytest.fixture
def work(scans, tmp_path):
    work = StudyCopy(scans, tmp_path)
    work.stage = "preprocess"
    work.write_cluster_file(preprocess={"nodes": 2})
    return work


def store(work):
    """Hash of every file of every volume, and of what the stage says that it made."""
    out = work.folder / "out/preprocess"
    files = [path for path in (out / "volumes").rglob("*") if path.is_file()]
    hashes = {str(path.relative_to(out)): sha256_file(path) for path in files}
    assert len({path.relative_to(out).parts[1] for path in files}) == SCANS
    return hashes | {"manifest": (out / "manifest.json").read_text()}


def scans_by_worker(work):
    """How many scans each worker has prepared in the last attempt."""
    provenance = json.loads((work.folder / "out/preprocess/provenance.json").read_text())
    return provenance["scans_by_worker"]


def second_node_process(work):
    """The process of the second node, once a worker of it has stored a scan."""
    log = work.folder / "out/logs/preprocess.log"
    wait_until(lambda: log.exists() and "-0: stored" in log.read_text(), "the second node works")
    return processes(f"SLURM_JOB_ID={work.job}", "cluster.workers")[0]


def has_no_processes(work):
    return not processes(f"SLURM_JOB_ID={work.job}")


def test_undisturbed(work, alone, outcome):
    """Nothing, while two nodes preprocess."""
    wait_for_launcher(work.launch())
    assert store(work) == alone
    assert sum(scans_by_worker(work).values()) == SCANS and len(scans_by_worker(work)) == 2
    assert has_no_processes(work)
    outcome(
        "equal; "
        + ", ".join(f"{n} scans by worker {name}" for name, n in scans_by_worker(work).items())
    )


def test_stranger(work, alone, outcome):
    """Client without the credentials of the run, while two nodes preprocess."""
    launcher = work.launch()
    command = Path(f"/proc/{second_node_process(work)}/cmdline").read_text().split("\0")
    address, *_, credentials = command[command.index("cluster.workers") + 1 :][:4]
    assert stat.S_IMODE(Path(credentials).stat().st_mode) == 0o700
    for protocol, others in (("tcp", Security()), ("tls", new_credentials())):
        with pytest.raises(OSError, match=r"Connection|certificate"):
            Client(address.replace("tls", protocol), security=others, timeout=5)
    wait_for_launcher(launcher)
    assert store(work) == alone and not Path(credentials).exists()
    outcome("refused, equal")


def test_killed_worker(work, alone, outcome):
    """Worker killed on the second node, and then all workers of that node."""
    launcher = work.launch()
    process = second_node_process(work)
    spawned = processes(f"SLURM_JOB_ID={work.job}", "spawn_main")
    worker = next(pid for pid in spawned if node_of(pid) == node_of(process))
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_gone(worker), "the worker has ended")
    os.kill(process, signal.SIGKILL)
    wait_for_launcher(launcher)
    assert work.attempt == 0 and store(work) == alone
    assert sum(scans_by_worker(work).values()) == SCANS and has_no_processes(work)
    outcome("what it had in work was done by others, equal")


def test_lost_node(work, alone, outcome):
    """Second node lost while two nodes preprocess."""
    launcher = work.launch()
    node = node_of(second_node_process(work))
    lose_node(node)
    wait_for_launcher(launcher)
    start_daemon("slurmd", "-N", node)
    assert work.attempt == 0 and store(work) == alone
    assert sum(scans_by_worker(work).values()) == SCANS
    outcome("the job ran on without it, equal")


def test_lost_first_node(work, alone, outcome):
    """First node lost while two nodes preprocess."""
    launcher = work.launch()
    second_node_process(work)
    node = node_of(work.stage_process())
    lose_node(node)
    wait_for_launcher(launcher)
    start_daemon("slurmd", "-N", node)
    assert work.attempt == 1 and store(work) == alone
    assert sum(scans_by_worker(work).values()) < SCANS
    outcome("requeued, stored volumes kept, equal")


def test_notice(work, alone, outcome):
    """Signalled to stop while two nodes preprocess."""
    launcher = work.launch()
    process = second_node_process(work)
    slurm("scancel", "--signal=USR2", work.job)
    wait_until(lambda: is_gone(process), "the second node's workers have ended")
    wait_for_launcher(launcher)
    assert work.attempt == 1 and store(work) == alone
    assert sum(scans_by_worker(work).values()) < SCANS and has_no_processes(work)
    outcome("workers ended, requeued, stored volumes kept, equal")
