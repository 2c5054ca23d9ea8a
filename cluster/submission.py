"""Submission of jobs by submitit; what runs on the node is cluster/job_entry.py.

submitit is used for its script, its pickles and its logs, and for nothing after that: how a job
ended is queried from SLURM (cluster/slurm.py), and the node requeues the job. Its `--wckey`, which
some clusters refuse, is off. A singleton waits for every job of its name, so that one output
has one writer.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.config import JobResources
from cluster.job_entry import JobEntry
from cluster.slurm import UNREACHABLE_PATTERN, SlurmUnavailableError
from ssl_pipeline.errors import UserError


def submit_jobs(
    jobs: Sequence[JobEntry],
    name: str,
    comment: str,
    folder: Path,
    resources: JobResources,
    *,
    first_node_only: bool = False,
    after_job: str = "",
) -> str:
    """Submit a job that runs in all its tasks, or on the first of its nodes only; its number.

    Several are the elements of one array, whose number is returned. A job may have to wait until
    `after_job`, with all its elements, has ended, however it did. Raises UserError if SLURM refuses
    it, SlurmUnavailableError if SLURM does not answer.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    try:
        executor = submitit.SlurmExecutor(
            folder.absolute() / "%j", python=_python_command(resources)
        )
        own = _parameters(name, comment, resources, first_node_only)
        # Elements of an array have one name, and write nothing that another writes.
        own["dependency"] = None if len(jobs) > 1 else _dependency(after_job)
        executor.update_parameters(**own)
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
        return str(submitted[0].job_id).partition("_")[0]
    except FailedJobError as error:
        reason = " ".join(re.sub(r"sbatch: (error: )?", "", str(error)).split())
        if UNREACHABLE_PATTERN.search(reason):
            raise SlurmUnavailableError(reason) from None
        raise UserError(
            f"SLURM refuses the job {name}: {reason}: change the cluster file."
        ) from None
    except RuntimeError as error:  # no srun here
        raise UserError(f"{error} Run this where SLURM's commands are.") from None


def _python_command(resources: JobResources) -> str:
    """The interpreter of a job; a grace signal that comes before it listens is kept for it."""
    return f"env --block-signal=USR2 {resources.python or shlex.quote(sys.executable)}"


def _dependency(after_job: str) -> str:
    return f"singleton,afterany:{after_job}" if after_job else "singleton"


def _parameters(
    name: str, comment: str, resources: JobResources, first_node_only: bool
) -> dict[str, object]:
    threads = f"export OMP_NUM_THREADS={resources.cpus}"
    # The other nodes are for the first one's workers: it goes on without lost ones.
    further = {
        "requeue": True,
        **({"no_kill": True} if first_node_only else {}),
        **resources.sbatch,
    }
    given: dict[str, object] = {
        "job_name": name,
        "comment": comment,
        "partition": resources.partition or None,
        "account": resources.account or None,
        "qos": resources.qos or None,
        "constraint": resources.constraint or None,
        "time": resources.time_min,
        "signal_delay_s": resources.signal_before_end_s,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": resources.gpus or None,
        "mem": f"{round(resources.mem_gb * 1024)}M",
        "setup": [threads, *resources.setup],
        "wckey": None,
        "stderr_to_stdout": True,
        "srun_args": ["--nodes=1", "--ntasks=1"] if first_node_only else [],
        "additional_parameters": further,
    }
    return given
