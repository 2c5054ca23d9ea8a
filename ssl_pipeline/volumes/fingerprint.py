"""Fingerprint of all raw files: one hash, quick enough for every start of the workflow.

It is made of path, size and a token per file. The token is the file's time, but a private file of
hashes keeps each file's token with its content, so that a file that was merely touched or copied
over with itself keeps its token, and one of other content with the same date does not. Contents
are hashed by `record_file_hashes`, after the inventory has read all files anyway;
`data_fingerprint` itself opens only files of which a time has changed and the size has not. A file
without a recorded hash counts by its time, which at worst builds the inventory again.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from ssl_pipeline.errors import UserError
from ssl_pipeline.io import atomic
from ssl_pipeline.io.permissions import private_files
from ssl_pipeline.io.records import read_json_if_whole
from ssl_pipeline.volumes.config import Data, resolve_path
from ssl_pipeline.volumes.inventory import WORKERS, Inventory
from ssl_pipeline.volumes.metadata_table import read_table
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from ssl_pipeline.volumes.readers import Source, source_files
from ssl_pipeline.volumes.walk import FileState, RawFiles, is_unlistable

ABSENT = "absent"


class _FileRecord(NamedTuple):
    size: int
    mtime_ns: int
    ctime_ns: int
    token: int  # the file's time when its content last changed
    sha256: str = ""  # empty until `record_file_hashes` was called


def data_fingerprint(data: Data, study_dir: Path, file_hashes: Path) -> str:
    """SHA-256 over the raw files, label files, table and split lists that a study names.

    `file_hashes` is a small JSON file, written only where a touched file was compared. Returns
    "absent" where a root, or what its path needs, is missing; the inventory reports which.
    """
    try:
        places = _data_paths(data, study_dir)
        named = [text for text in (data.table, *data.splits.lists.values()) if text]
        texts = [resolve_path(text, study_dir) for text in named]
    except UserError:
        return ABSENT
    if not all(place.exists() for place in places):
        return ABSENT
    before = _read_file_hashes(file_hashes)
    now = {
        path: _updated_state(path, state, before.get(path))
        for path, state in _file_states(places).items()
    }
    if any(path in before and known != before[path] for path, known in now.items()):
        _write_file_hashes(file_hashes, now)
    listed = [(path, known.size, known.token) for path, known in sorted(now.items())]
    return atomic.sha256_json([listed, [_content_hash(path) for path in texts]])


def total_bytes(data: Data, study_dir: Path) -> int:
    """Bytes of all raw and label files; 0 where a root, or what its path needs, is not there.

    Raises UserError for a table that cannot be used.
    """
    try:
        places = _folders(data)
        places += [resolve_path(data.table, study_dir)] if data.table else []
    except UserError:
        return 0
    if not all(place.exists() for place in places):
        return 0
    return sum(state.size for state in _file_states(_data_paths(data, study_dir)).values())


def record_file_hashes(inventory: Inventory, pseudonyms: PseudonymStore) -> None:
    """Record the content hash of every new raw file, for `data_fingerprint` to use.

    The file is `pseudonyms.file_hashes`. Files that the inventory has hashed are not hashed again;
    slices of DICOM and labels that are no masks are.
    """
    before = _read_file_hashes(pseudonyms.file_hashes)
    states = inventory.file_states
    now = {path: _updated_state(path, state, before.get(path)) for path, state in states.items()}
    known = _known_hashes(inventory, pseudonyms)
    unknown = [path for path, record in now.items() if not record.sha256]
    with ThreadPoolExecutor(WORKERS) as pool:
        hashes = pool.map(lambda path: known.get(path) or _unchanged_hash(path, now[path]), unknown)
        for path, sha256 in zip(unknown, hashes, strict=True):
            now[path] = now[path]._replace(sha256=sha256)
    _write_file_hashes(pseudonyms.file_hashes, now)


def _known_hashes(inventory: Inventory, pseudonyms: PseudonymStore) -> dict[str, str]:
    """The hashes of files that are a scan or a mask on their own, by path."""
    hashes = {}
    for scan in inventory.scans:
        origin = pseudonyms.origins[scan.id]
        state = inventory.file_states.get(origin.path)
        if state and state.size == scan.size_bytes:
            hashes[origin.path] = scan.sha256
        for mask in scan.masks.values():
            path = Path(origin.labels[mask["label"]])
            if source_files(Source(path)) == [path]:
                hashes[str(path)] = mask["sha256"]
    return hashes


def _unchanged_hash(path: str, state: _FileRecord) -> str:
    """The hash of a file that is still as it was discovered, else empty: it counts by its time."""
    sha256 = _content_hash(Path(path))
    if sha256 == ABSENT:
        return ABSENT
    return sha256 if FileState.of(Path(path).stat()) == state[:3] else ""


def _data_paths(data: Data, study_dir: Path) -> list[Path]:
    """The folders of scans and labels, and the files and folders that the table names."""
    rows = read_table(resolve_path(data.table, study_dir)) if data.table else []
    return _folders(data) + [row.path for row in rows]


def _folders(data: Data) -> list[Path]:
    """The folders of scans and labels."""
    texts = [root.path for root in data.roots]
    texts += [label.path for root in data.roots for label in root.labels.values()]
    return [resolve_path(text) for text in texts]


def _file_states(places: list[Path]) -> dict[str, FileState]:
    """Size and time of every file, by path."""
    raw_files = RawFiles()
    for place in places:
        if not is_unlistable(place):
            raw_files.below(place)
    return raw_files.states


def _updated_state(path: str, state: FileState, previous: _FileRecord | None) -> _FileRecord:
    if previous and previous[:3] == state:
        return previous
    if previous and previous.size == state.size and previous.sha256:
        sha256 = _content_hash(Path(path))
        is_dated_as_before = state.mtime_ns == previous.mtime_ns
        changed = state.ctime_ns if is_dated_as_before else state.mtime_ns
        return _FileRecord(*state, previous.token if sha256 == previous.sha256 else changed, sha256)
    return _FileRecord(*state, state.mtime_ns)


def _content_hash(path: Path) -> str:
    return atomic.sha256_file(path) if path.is_file() else ABSENT


def _write_file_hashes(file: Path, records: dict[str, _FileRecord]) -> None:
    """Write the records, which hold the paths of scans, for the eyes of their owner alone."""
    with private_files():
        atomic.write_json(file, records)


def _read_file_hashes(file: Path) -> dict[str, _FileRecord]:
    return read_json_if_whole(TypeAdapter(dict[str, _FileRecord]).validate_json, file) or {}
