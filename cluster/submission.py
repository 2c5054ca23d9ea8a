"""submitit writes the script of a job and submits it; what runs on the node is cluster/node.py.

submitit is used for its script, its pickles and its logs, and for nothing after that: what ended a
job is asked of SLURM (cluster/slurm.py), and requeuing is the node's own. Its habit of `--wckey`,
which some clusters refuse, is off. A singleton waits for every job of its name, so that one output
has one writer.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.config import Resources
from cluster.node import Job
from cluster.slurm import AWAY, AwayError
from ssl_pipeline.errors import UserError


def submit(
    jobs: Sequence[Job],
    name: str,
    comment: str,
    folder: Path,
    asked: Resources,
    *,
    alone: bool = False,
    after: str = "",
) -> str:
    """Submit a job that runs in all its tasks, or alone on the first of its nodes; its number.

    Several are the elements of one array, whose number is returned. A job may have to wait until
    all that is in the one `after` which it comes has ended, however it did. Raises UserError if
    SLURM refuses it, AwayError if it is away.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    try:
        executor = submitit.SlurmExecutor(folder.absolute() / "%j", python=_python(asked))
        own = _parameters(name, comment, asked, alone)
        # Elements of an array have one name, and write nothing that another writes.
        own["dependency"] = None if len(jobs) > 1 else _dependency(after)
        executor.update_parameters(**own)
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
        return str(submitted[0].job_id).partition("_")[0]
    except FailedJobError as error:
        reason = " ".join(re.sub(r"sbatch: (error: )?", "", str(error)).split())
        if AWAY.search(reason):
            raise AwayError(reason) from None
        raise UserError(
            f"SLURM refuses the job {name}: {reason}: change the cluster file."
        ) from None
    except RuntimeError as error:  # no srun here
        raise UserError(f"{error} Run this where SLURM's commands are.") from None


def _python(asked: Resources) -> str:
    """The interpreter of a job; a notice that comes before it listens waits for it."""
    return f"env --block-signal=USR2 {asked.python or shlex.quote(sys.executable)}"


def _dependency(after: str) -> str:
    return f"singleton,afterany:{after}" if after else "singleton"


def _parameters(name: str, comment: str, asked: Resources, alone: bool) -> dict[str, object]:
    threads = f"export OMP_NUM_THREADS={asked.cpus}"
    # The other nodes are for the first one's workers: it goes on without those that are lost.
    further = {"requeue": True, **({"no_kill": True} if alone else {}), **asked.sbatch}
    given: dict[str, object] = {
        "job_name": name,
        "comment": comment,
        "partition": asked.partition or None,
        "account": asked.account or None,
        "qos": asked.qos or None,
        "constraint": asked.constraint or None,
        "time": asked.time_min,
        "signal_delay_s": asked.notice_s,
        "nodes": asked.nodes,
        "ntasks_per_node": asked.tasks_per_node,
        "cpus_per_task": asked.cpus,
        "gpus_per_node": asked.gpus or None,
        "mem": f"{round(asked.mem_gb * 1024)}M",
        "setup": [threads, *asked.setup],
        "wckey": None,
        "stderr_to_stdout": True,
        "srun_args": ["--nodes=1", "--ntasks=1"] if alone else [],
        "additional_parameters": further,
    }
    return given
