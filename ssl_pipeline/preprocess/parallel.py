"""Parallel preprocessing of scans, on Dask workers or on threads of this process.

A task is one scan, from its file to its place in the store, so nothing large travels between
processes and a task that is lost is simply repeated. Only a few tasks for each worker are handed
out at a time: 100,000 scans need no graph of 100,000 tasks. A scan that fails is reported and the
others go on.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from threadpoolctl import threadpool_limits

from ssl_pipeline.errors import UserError, is_disk_full
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.labels import keeps_whole_scan, share_outside
from ssl_pipeline.preprocess.prepare import (
    PreparedVolume,
    VolumeMeta,
    check_memory,
    prepare_volume,
)
from ssl_pipeline.volumes.inventory import Scan
from ssl_pipeline.volumes.readers import ReadError, Source, read_volume
from ssl_pipeline.volumes.volume import Volume

if TYPE_CHECKING:
    from distributed import Client

WriteVolume = Callable[[Scan, PreparedVolume], None]
TASKS_PER_WORKER = 3  # tasks handed out for each worker
KILLED_MESSAGE = (
    "Each worker that prepared it was killed, likely for its memory: raise dask.memory_gib."
)


class ScanWithMasks(NamedTuple):
    """A scan, its source, the files of its masks by their kind, and of its labels by name."""

    scan: Scan
    source: Source
    masks: Mapping[str, Path] = MappingProxyType({})
    labels: Mapping[str, Path] = MappingProxyType({})


@dataclass(frozen=True)
class PreprocessResult:
    """The outcome of preprocessing one scan."""

    scan_id: str
    error: str  # "" when it is written, else one sentence
    traceback: str = ""  # where the error is not one that the user can act on
    worker: str = ""  # name of the Dask worker that did it


def preprocess_scans(
    scans: Iterable[ScanWithMasks],
    section: Preprocess,
    write: WriteVolume,
    client: "Client | None",
    workers: int,
) -> Iterator[PreprocessResult]:
    """Read each scan from its source, prepare it, hand it to `write`, and yield the outcome.

    Results come as they complete, in any order.

    With a Dask client, `write` is pickled and called on its workers, and `workers` says how many
    those are; without, it is called on `workers` threads of this process. Where the caller stops
    early, tasks that have not begun are dropped.
    """
    todo = iter(scans)
    prepare_one = preprocess_scan if client is None else _preprocess_on_worker
    with _executor(client, workers) as executor:
        running: dict[Future[PreprocessResult], str] = {}
        while True:
            for each in islice(todo, max(1, workers) * TASKS_PER_WORKER - len(running)):
                running[executor.submit(prepare_one, each, section, write)] = each.scan.id
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield _result(done, running.pop(done))


def preprocess_scan(
    scan_with_masks: ScanWithMasks, section: Preprocess, write: WriteVolume
) -> PreprocessResult:
    """Read, prepare and write one scan; whatever goes wrong is in the result, but a full disk."""
    scan = scan_with_masks.scan
    section = section.for_roots([scan.root])
    try:
        check_memory(scan.shape, section, resampled=False)
        prepared = prepare_volume(
            read_volume(scan_with_masks.source),
            scan.modality,
            section,
            intensity_offset=scan.intensity_offset,
            missing_value=scan.missing_value,
            label_masks={
                name: _read_mask(name, path) for name, path in scan_with_masks.masks.items()
            },
        )
        cut_labels = _cut_labels(scan_with_masks.labels, prepared.meta)
        write(scan, replace(prepared, meta=replace(prepared.meta, cut_labels=cut_labels)))
    except ReadError as error:
        return PreprocessResult(scan.id, error.reason)
    except UserError as error:
        return PreprocessResult(scan.id, str(error))
    except MemoryError:
        return PreprocessResult(scan.id, "The memory did not suffice: set fewer workers.")
    except Exception as error:
        if is_disk_full(error):
            raise  # the scans after it would fail as well
        return PreprocessResult(scan.id, _unexpected(error), _format_traceback(error))
    return PreprocessResult(scan.id, "")


def _cut_labels(labels: Mapping[str, Path], meta: VolumeMeta) -> dict[str, float]:
    """The labels that reach out of the crop, with the share of their voxels that does.

    A label that cannot be read is none here: what uses it says so. None is read where nothing was
    cropped, for each lies on the scan's own grid.
    """
    if keeps_whole_scan(meta):
        return {}
    found = {}
    for name, path in labels.items():
        with suppress(ReadError):
            found[name] = share_outside(read_volume(Source(path)), meta)
    return {name: share for name, share in found.items() if share > 0}


def _read_mask(name: str, path: Path) -> Volume:
    try:
        return read_volume(Source(path))
    except ReadError as error:
        raise UserError(f"Its {name} mask cannot be used: {error.reason}") from None


def _preprocess_on_worker(
    scan_with_masks: ScanWithMasks, section: Preprocess, write: WriteVolume
) -> PreprocessResult:
    from distributed import get_worker

    return replace(preprocess_scan(scan_with_masks, section, write), worker=str(get_worker().name))


def _result(done: "Future[PreprocessResult]", scan_id: str) -> PreprocessResult:
    """The task's own result, or the failure of its worker. Raises OSError for a full disk."""
    try:
        return done.result()
    except Exception as error:
        if is_disk_full(error):
            raise
        if type(error).__name__ == "KilledWorker":  # of distributed, which threads do not need
            return PreprocessResult(scan_id, KILLED_MESSAGE)
        return PreprocessResult(scan_id, _unexpected(error), _format_traceback(error))


def _unexpected(error: Exception) -> str:
    """A message with the system's own text; other texts may contain the scan's path."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return f"Something unforeseen happened, {why}: the stage's log says where."


def _format_traceback(error: Exception) -> str:
    """Where an error was raised, without its message, which may contain the scan's path."""
    return "".join((*traceback.format_tb(error.__traceback__), type(error).__name__))


@contextmanager
def _executor(client: "Client | None", workers: int) -> Iterator[Executor]:
    """The executor that tasks run on.

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
