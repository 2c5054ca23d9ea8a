"""The time that a stage takes, over all its starts: killed, requeued or failed, it goes on.

A start that is killed cannot say how long it ran, so a thread writes it down now and then. Whoever
asks sees by this record, from any machine, that a stage runs.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.records import Record, read_record_if_whole, write_record
from stages.core.layout import ELAPSED_RECORD

INTERVAL_S = 15.0
STALE_S = 120.0  # a record that is older is not of a process that runs now


class ElapsedTime(Record):
    """How long a stage has run for one key, since its first start."""

    format: Literal[1] = 1
    key: str
    seconds: float
    first_start: float  # seconds since the epoch, as all times here
    last_start: float = 0.0
    updated: float = 0.0
    is_open: bool = False  # the last start has not ended, or was killed

    @property
    def is_running(self) -> bool:
        """Whether a process runs the stage now."""
        return self.is_open and time.time() - self.updated < STALE_S


def elapsed_before(out: Path, key: str) -> ElapsedTime:
    """The time of earlier starts for this key; of none where there are none, or none is known."""
    unknown = ElapsedTime(key=key, seconds=0.0, first_start=time.time())
    known = read_record_if_whole(ElapsedTime, out / ELAPSED_RECORD)
    return known if known and known.key == key else unknown


@contextmanager
def record_elapsed(out: Path, before: ElapsedTime) -> Iterator[None]:
    """Keep the time of the block, and of the starts `before` it, in the stage's folder."""
    start, started, ended = time.time(), time.monotonic(), threading.Event()

    def write() -> None:
        known = {
            "seconds": before.seconds + time.monotonic() - started,
            "last_start": start,
            "updated": time.time(),
            "is_open": not ended.is_set(),
        }
        with suppress(OSError, UserError):  # the stage reports a full disk or a lost lease
            write_record(out / ELAPSED_RECORD, before.model_copy(update=known))

    def write_now_and_then() -> None:
        while not ended.wait(INTERVAL_S):
            write()

    write()
    thread = threading.Thread(target=write_now_and_then, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        write()
