"""Prepare and write many scans at once, on Dask workers or on threads of this process.

A task is one scan, from its file to its place in the store, so nothing large travels between
processes and a task that is lost is simply done again. Only a few tasks for each worker are handed
out at a time: 100,000 scans need no graph of 100,000 tasks. A scan that fails is reported and the
others go on.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from threadpoolctl import threadpool_limits

from ssl_pipeline.errors import UserError, no_room
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import Prepared, check_memory, prepare
from ssl_pipeline.volumes.inventory import Scan
from ssl_pipeline.volumes.readers import ReadError, Source, read
from ssl_pipeline.volumes.volume import Volume

if TYPE_CHECKING:
    from distributed import Client

Write = Callable[[Scan, Prepared], None]
AHEAD = 3  # tasks handed out for each worker
KILLED = "Each worker that prepared it was killed, likely for its memory: raise dask.memory_gib."


class Located(NamedTuple):
    """A scan, where it lies, and where the masks lie that were drawn for it, by what they say."""

    scan: Scan
    source: Source
    masks: Mapping[str, Path] = MappingProxyType({})


@dataclass(frozen=True)
class Result:
    """What became of one scan."""

    scan_id: str
    error: str  # "" when it is written, else one sentence
    trace: str = ""  # traceback, where the error is not one that the user can do something about
    worker: str = ""  # name of the Dask worker that did it


def run(
    scans: Iterable[Located],
    section: Preprocess,
    write: Write,
    client: "Client | None",
    workers: int,
) -> Iterator[Result]:
    """Read each scan from its source, prepare it, hand it to `write`, and yield what became of it.

    Results come as they complete, in any order.

    With a Dask client, `write` is pickled and called on its workers, and `workers` says how many
    those are; without, it is called on `workers` threads of this process. Where the caller stops
    early, tasks that have not begun are dropped.
    """
    todo = iter(scans)
    prepare_one = prepare_scan if client is None else _prepare_on_worker
    with _executor(client, workers) as executor:
        running: dict[Future[Result], str] = {}
        while True:
            for each in islice(todo, max(1, workers) * AHEAD - len(running)):
                running[executor.submit(prepare_one, each, section, write)] = each.scan.id
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield _result(done, running.pop(done))


def prepare_scan(located: Located, section: Preprocess, write: Write) -> Result:
    """Read, prepare and write one scan; whatever goes wrong is in the result, but a full disk."""
    scan = located.scan
    try:
        check_memory(scan.shape, section, resampled=False)
        prepared = prepare(
            read(located.source),
            scan.modality,
            section,
            intensity_offset=scan.intensity_offset,
            missing_value=scan.missing_value,
            drawn={name: _drawn(name, path) for name, path in located.masks.items()},
        )
        write(scan, prepared)
    except ReadError as error:
        return Result(scan.id, error.what)
    except UserError as error:
        return Result(scan.id, str(error))
    except MemoryError:
        return Result(scan.id, "The memory did not suffice: set fewer workers.")
    except Exception as error:
        if no_room(error):
            raise  # the scans after it would fare no better
        return Result(scan.id, _unexpected(error), _trace(error))
    return Result(scan.id, "")


def _drawn(name: str, path: Path) -> Volume:
    try:
        return read(Source(path))
    except ReadError as error:
        raise UserError(f"Its {name} mask cannot be used: {error.what}") from None


def _prepare_on_worker(located: Located, section: Preprocess, write: Write) -> Result:
    from distributed import get_worker

    return replace(prepare_scan(located, section, write), worker=str(get_worker().name))


def _result(done: "Future[Result]", scan_id: str) -> Result:
    """The task's own result, or what became of its worker. Raises OSError for a full disk."""
    try:
        return done.result()
    except Exception as error:
        if no_room(error):
            raise
        if type(error).__name__ == "KilledWorker":  # of distributed, which threads do not need
            return Result(scan_id, KILLED)
        return Result(scan_id, _unexpected(error), _trace(error))


def _unexpected(error: Exception) -> str:
    """The system's own words are passed on; others may say where the scan lies."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return f"Something unforeseen happened, {why}: the stage's log says where."


def _trace(error: Exception) -> str:
    """Where an error was raised, without its own words, which may say where the scan lies."""
    return "".join((*traceback.format_tb(error.__traceback__), type(error).__name__))


@contextmanager
def _executor(client: "Client | None", workers: int) -> Iterator[Executor]:
    """Where tasks run.

    numpy's own threads are switched off meanwhile, as Dask does on its workers: tasks fill the
    cores, and two threads of a matrix product that wait for each other take five times its time.
    """
    if client is not None:
        executor: Executor = client.get_executor(pure=False)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)  # Dask cancels what has not begun
        return
    with threadpool_limits(1):
        executor = ThreadPoolExecutor(max(1, workers), thread_name_prefix="prepare")
        try:
            yield executor
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
