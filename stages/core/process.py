"""What a process that runs a command shares, on a terminal or on a node: signals, and exit codes.

Exit codes: 0 done; 2 the user must change something (one sentence, no traceback); 3 interrupted and
resumable, or answers of readers are missing; 4 an update is due (`drift`); 1 a bug (a
traceback, and the path of the log). Stages and libraries know nothing of them.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

import cluster
import stages
from cluster.job_entry import INTERRUPTED_EXIT
from ssl_pipeline.errors import PendingReviewError, UserError, access_error_sentence, is_disk_full
from ssl_pipeline.io.permissions import forbid_others_to_write
from ssl_pipeline.progress import info

DONE_EXIT, BUG_EXIT, USER_EXIT, UPDATE_DUE_EXIT = 0, 1, 2, 4

DISK_FULL_MESSAGE = (
    "The disk is full, or the quota used up ({}): free some (`ssl-pipeline clean` lists what the "
    "study no longer needs), then run the same command again, which goes on."
)


def run_process(command: str, work: Callable[[], int]) -> int:
    """Run a command as all that this process does; returns its exit code.

    No other user can change what it writes, whatever the umask of the shell is.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    forbid_others_to_write()
    for stream in (sys.stdout, sys.stderr):  # a terminal without a letter shows its code
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Threads that spin while they wait slow to a crawl beside other work on the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    def checked() -> int:
        _check_installation()
        return work()

    return exit_code_of(command, checked)


def exit_code_of(
    command: str,
    work: Callable[[], int],
    redact: Callable[[str], str] = str,
    log: Path | None = None,
) -> int:
    """The exit code of some work; what it raises is reported, redacted, and a bug logged."""
    try:
        return work()
    except UserError as error:
        info(f"{command}: {redact(str(error))}", error=True)
        return USER_EXIT
    except PendingReviewError as pending:
        info(f"{command}: {pending}", error=True)
        return INTERRUPTED_EXIT
    except KeyboardInterrupt as stop:
        why = str(stop) or "interrupted"
        info(f"{command}: {why}; run the same command again to go on.", error=True)
        return INTERRUPTED_EXIT
    except Exception as error:
        if is_disk_full(error):
            disk = getattr(error, "filename", None) or "where it writes"
            info(redact(f"{command}: {DISK_FULL_MESSAGE.format(disk)}"), error=True)
            return USER_EXIT
        if refusal := access_error_sentence(error):
            info(redact(f"{command}: {refusal}"), error=True)
            return USER_EXIT
        _report_bug(redact(traceback.format_exc()), log)
        return BUG_EXIT


def _report_bug(trace: str, log: Path | None) -> None:
    print(trace, file=sys.stderr)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a") as file:
            file.write(trace)
        print(f"This is a bug in ssl-pipeline; its log is {log}.", file=sys.stderr)


def _check_installation() -> None:
    """Both packages must come from one clone: other packages of these names exist."""
    homes = {Path(p.__file__ or "").resolve().parent.parent for p in (cluster, stages)}
    if len(homes) != 1:
        found = " and ".join(str(home) for home in sorted(homes))
        raise UserError(f"`stages` and `cluster` come from different places, {found}: reinstall.")
