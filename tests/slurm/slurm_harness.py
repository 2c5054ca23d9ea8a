"""What a fault test does: start a study on SLURM, look at its job, break something, look again."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LAB = Path(
    os.environ.get("SSL_SLURM_LAB", f"{os.environ.get('TMPDIR', '/tmp')}/ssl-slurm-{os.getuid()}")
)
WEIGHTS = "out/pretrain/encoder/encoder.safetensors"
# What a user's shell or an outer job may have set: none of it may reach our jobs.
MISLEADING = {
    "SBATCH_PARTITION": "nowhere",
    "SLURM_MEM_PER_CPU": "1",
    "SLURM_GPUS_PER_NODE": "9",
    "RANK": "3",
    "WORLD_SIZE": "4",
}


def slurm(*command):
    """The answer of a SLURM command."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_until(condition, what, seconds=90):
    """Wait for a condition, and say which one if it does not come true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return found


class StudyCopy:
    """A copy of the prepared study in a folder of its own, and its job."""

    stage = "pretrain"

    def __init__(self, prepared, folder, **asked):
        shutil.copytree(prepared, folder, dirs_exist_ok=True, copy_function=shutil.copy2)
        self.folder, self.study = folder, folder / "tiny.yaml"
        self.study.write_text(self.study.read_text().replace(str(prepared), str(folder)))
        self.cluster = folder / "cluster.yaml"
        self.write_cluster_file(**asked)

    def write_cluster_file(self, on_interrupt="cancel", preprocess=None, pretrain=None, **asked):
        """Write the cluster file: what all stages ask for, and what two of them do beyond."""
        resources = {
            "partition": "main",
            "time_min": 5,
            "signal_before_end_s": 30,
            "mem_gb": 3,
            **asked,
        }
        content = {
            "on_interrupt": on_interrupt,
            "defaults": resources,
            "stages": {"preprocess": preprocess or {}, "pretrain": pretrain or {}},
        }
        self.cluster.write_text(json.dumps(content))

    def launch(self, **environment):
        """A launcher by hand."""
        where = ["--config", self.study, "--on", self.cluster]
        command = [sys.executable, "-m", "stages", self.stage, *map(str, where)]
        return self._start(command, **environment)

    def snakemake(self):
        """A launcher as users start it."""
        words = ["--config", f"study={self.study}", "--until", "pretrain"]
        where = ["--profile", "slurm", "--default-resources", f"run_on={self.cluster}"]
        return self._start(["snakemake", *where, *words])

    def _start(self, command, **environment):
        said = self.folder / f"said-{time.monotonic_ns()}.txt"
        with open(said, "w") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True,
                env={**os.environ, **MISLEADING, **environment},
            )  # fmt: skip
        process.said = said
        return process

    @property
    def job(self):
        """Number of the newest job; waits for it."""
        path = self.folder / f"out/jobs/{self.stage}/job.json"
        wait_until(path.exists, "a job is submitted")
        return json.loads(path.read_text())["job"]

    @property
    def node(self):
        return slurm("squeue", "-h", "-j", self.job, "-o", "%N")

    @property
    def attempt(self):
        """The attempt that holds the lease."""
        path = self.folder / f"out/{self.stage}/.lease.json"
        return json.loads(path.read_text())["attempt"] if path.exists() else -1

    @property
    def log(self):
        return (self.folder / f"out/jobs/{self.stage}/{self.job}/{self.job}_0_log.out").read_text()

    def rows(self):
        """Steps that are in the metrics log, in the order of the file."""
        logs = list(self.folder.glob("out/pretrain/runs/*/metrics.jsonl"))
        lines = [
            line for log in logs for line in log.read_text().splitlines() if line.endswith("}")
        ]
        return [json.loads(line)["step"] for line in lines]

    def wait_for_training(self, rows=3):
        wait_until(lambda: len(self.rows()) >= rows, f"{rows} rows in the metrics log")

    def stage_process(self):
        """The process of the stage on its node; waits for it."""
        mark = f"SLURM_JOB_ID={self.job}"

        def ours():  # srun has these words in its command too
            found = processes(mark, "submitit.core._submit")
            return [pid for pid in found if program(pid).startswith("python")]

        return wait_until(ours, "the stage's process")[0]

    def is_running(self):
        return slurm("squeue", "-h", "-j", self.job, "-o", "%T") == "RUNNING"

    def jobs(self):
        """Numbers of all jobs that were ever submitted for this stage of this study."""
        name = slurm("sacct", "-nXP", "-j", self.job, "-o", "jobname")
        return slurm("sacct", "-nXP", "--name", name, "-o", "jobid").split()

    def weights(self):
        return (self.folder / WEIGHTS).read_bytes()


def processes(mark, words=""):
    """The processes with this in their environment and these words in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().decode(errors="replace").split("\0")
            command = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if mark in environment and words in " ".join(command):
            found.append(int(path.name))
    return found


def node_of(pid):
    """The node that a process runs on."""
    environment = (Path("/proc") / str(pid) / "environ").read_bytes().decode().split("\0")
    return next(word for word in environment if word.startswith("SLURMD_NODENAME=")).split("=")[1]


def program(pid):
    """The name of a process's program; empty where it has ended."""
    try:
        return (Path("/proc") / str(pid) / "exe").readlink().name
    except OSError:
        return ""


def lose_node(node):
    """A node goes dark: its slurmd and all that it started end at once, and tell nobody."""
    found = subprocess.run(["pgrep", "-x", "slurmstepd"], capture_output=True, text=True)
    log = LAB / "log" / f"slurmd-{node}.log"
    steps = [
        int(pid)
        for pid in found.stdout.split()
        if log in [path.readlink() for path in (Path("/proc") / pid / "fd").glob("*")]
    ]
    for pid in [daemon(f"slurmd-{node}"), *steps, *processes(f"SLURMD_NODENAME={node}")]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")


def children(pid):
    """The processes that a process has started, from any of its threads."""
    threads = (Path("/proc") / str(pid) / "task").glob("*/children")
    return [child for thread in threads for child in thread.read_text().split()]


def wait_for_launcher(process, code=0, seconds=240):
    """Wait for a launcher to end with this code; what it said."""
    process.wait(seconds)
    said = process.said.read_text()
    assert process.returncode == code, said
    return said


def kill_launcher(process, number=signal.SIGKILL):
    """Signal a launcher and all that it started here."""
    os.killpg(process.pid, number)


def is_gone(pid):
    """Whether a process has ended."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def has_been_sent(pid, number):
    """Whether a signal waits for a stopped process, or has woken it and was obeyed."""
    try:
        status = (Path("/proc") / str(pid) / "status").read_text()
    except FileNotFoundError:
        return True
    line = next(line for line in status.splitlines() if line.startswith("ShdPnd"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def wake(pid):
    """Let a stopped process go on, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def daemon(name):
    """The process number of a daemon of the lab."""
    return int((LAB / "run" / f"{name}.pid").read_text())


def end_daemon(name, number=signal.SIGKILL):
    """Kill a daemon of the lab as a power cut would; stop it with SIGTERM.

    The controller saves what it knows some seconds late: after a power cut it would start a job
    that runs a second time, and drain its node.
    """
    pid = daemon(name)
    os.kill(pid, number)
    wait_until(lambda: is_gone(pid), f"{name} is gone")


def start_daemon(*command):
    """Start a daemon of the lab again, and wait until all nodes are there.

    A step that ended without a controller tells it so a minute later: its node is kept until then.
    """
    subprocess.run(command, check=True)

    def ready():
        said = subprocess.run(["sinfo", "-h", "-N", "-p", "main", "-o", "%t"], capture_output=True)
        states = said.stdout.decode().split()
        return states and all(state in ("idle", "mix", "alloc") for state in states)

    wait_until(ready, "all nodes are there", 150)
