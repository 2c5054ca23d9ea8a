"""Fingerprint of all raw files: one hash, quick enough for every start of the workflow.

It is made of path, size and a token per file. The token is the file's time, but a private file of
hashes keeps each file's token with its content, so that a file that was merely touched or copied
over with itself keeps its token. Contents are hashed by `record_file_hashes`, after the inventory
has read all files anyway; `data_fingerprint` itself opens only files whose time has changed and
whose size has not. A file without a recorded hash counts by its time, which at worst builds the
inventory again.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ssl_pipeline.errors import UserError
from ssl_pipeline.io import atomic
from ssl_pipeline.volumes import walk
from ssl_pipeline.volumes.config import Data, resolve_path
from ssl_pipeline.volumes.inventory import Inventory, Scan
from ssl_pipeline.volumes.metadata_table import read_table
from ssl_pipeline.volumes.pseudonyms import PseudonymStore

ABSENT = "absent"
WORKERS = min(4, os.cpu_count() or 1)


class _FileState(NamedTuple):
    size: int
    mtime_ns: int
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
        atomic.write_json(file_hashes, now)
    listed = [(path, known.size, known.token) for path, known in sorted(now.items())]
    return atomic.sha256_json([listed, [_content_hash(path) for path in texts]])


def total_bytes(data: Data, study_dir: Path) -> int:
    """Bytes of all raw and label files; 0 where a root, or what its path needs, is not there."""
    try:
        places = _data_paths(data, study_dir)
    except UserError:
        return 0
    if not all(place.exists() for place in places):
        return 0
    return sum(size for size, _ in _file_states(places).values())


def record_file_hashes(
    data: Data, study_dir: Path, pseudonyms: PseudonymStore, inventory: Inventory
) -> None:
    """Record the content hash of every new raw file, for `data_fingerprint` to use.

    The file is `pseudonyms.file_hashes`. Files that the inventory has hashed are not hashed again;
    slices of DICOM and labels are.
    """
    before = _read_file_hashes(pseudonyms.file_hashes)
    states = _file_states(_data_paths(data, study_dir))
    now = {path: _updated_state(path, state, before.get(path)) for path, state in states.items()}
    located = ((pseudonyms.origins[scan.id].path, scan) for scan in inventory.scans)
    hashed = {path: scan.sha256 for path, scan in located if _is_one_file(path, scan, now)}
    unknown = [path for path, known in now.items() if not known.sha256]
    with ThreadPoolExecutor(WORKERS) as pool:
        contents = pool.map(lambda path: hashed.get(path) or _content_hash(Path(path)), unknown)
        for path, sha256 in zip(unknown, contents, strict=True):
            now[path] = now[path]._replace(sha256=sha256)
    atomic.write_json(pseudonyms.file_hashes, now)


def _is_one_file(path: str, scan: Scan, states: dict[str, _FileState]) -> bool:
    """Whether the scan's hash is that of the file at its path, and of no other file with it."""
    return path in states and states[path].size == scan.size_bytes


def _data_paths(data: Data, study_dir: Path) -> list[Path]:
    """The folders of scans and labels, and the files and folders that the table names."""
    texts = [root.path for root in data.roots]
    texts += [label.path for root in data.roots for label in root.labels.values()]
    rows = read_table(resolve_path(data.table, study_dir)) if data.table else []
    return [resolve_path(text) for text in texts] + [row.path for row in rows]


def _file_states(paths: list[Path]) -> dict[str, tuple[int, int]]:
    """Size and time of every file, by path."""
    states = {str(place): place.stat() for place in paths if place.is_file()}
    for place in (place for place in paths if place.is_dir() and not walk.is_unlistable(place)):
        for entries in walk.walk_folders(place):
            # of a link to nothing, the link's own
            states |= {e.path: e.stat(follow_symlinks=walk.is_file(e)) for e in entries}
    return {path: (state.st_size, state.st_mtime_ns) for path, state in states.items()}


def _updated_state(path: str, state: tuple[int, int], previous: _FileState | None) -> _FileState:
    size, mtime_ns = state
    if previous and previous[:2] == state:
        return previous
    if previous and previous.size == size and previous.sha256:
        sha256 = _content_hash(Path(path))
        token = previous.token if sha256 == previous.sha256 else mtime_ns
        return _FileState(size, mtime_ns, token, sha256)
    return _FileState(size, mtime_ns, mtime_ns)


def _content_hash(path: Path) -> str:
    return atomic.sha256_file(path) if path.is_file() else ABSENT


def _read_file_hashes(file: Path) -> dict[str, _FileState]:
    if not file.is_file():
        return {}
    return {path: _FileState(*known) for path, known in atomic.read_json(file).items()}
