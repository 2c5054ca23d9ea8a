"""Where torch keeps compiled code: a folder of this user alone, without torn files.

torch's own choice is a folder for temporary files with a name that others can foresee. Whoever
makes that folder first decides which code the training loads. And torch takes what is there for
whole: what a killed compiler, or a full disk, has left half written would stop every later run.
Headers it would compile in advance into the foreseeable folder whatever is set, and a torn one
looks like a whole one: so it compiles none.
"""

import fcntl
import os
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

from ssl_pipeline.io.permissions import make_private_folder
from ssl_pipeline.progress import info

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # torch reads it, and the next one
HEADERS_VARIABLE = "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"
ELF_HEADER = struct.Struct("<4s36xQ10xHH2x")  # magic; offset, entry size, entries of the last table


def use_private_compile_cache() -> None:
    """Set the folder of compiled code, unless the user has set one, and remove torn code from it.

    Raises UserError where the folder is there already, but is not private.
    """
    os.environ.setdefault(HEADERS_VARIABLE, "0")
    if not os.environ.get(CACHE_VARIABLE):
        folder = Path(tempfile.gettempdir()) / f"torch-compiled-{os.geteuid()}"
        make_private_folder(folder)
        os.environ[CACHE_VARIABLE] = str(folder)
    _remove_torn_code(Path(os.environ[CACHE_VARIABLE]))


def _remove_torn_code(folder: Path) -> None:
    """Remove compiled code that is not whole, unless another process may just be writing it.

    Each process that compiles holds a shared lock on the folder as long as it lives.
    """
    if not folder.is_dir():
        return
    lock = os.open(folder, os.O_RDONLY)  # held until the process ends
    with suppress(OSError):  # another process holds it, or the file system has no locks
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        torn = [path for end in ("so", "o") for path in folder.rglob(f"*.{end}") if _is_torn(path)]
        for path in torn:
            path.unlink()
        if torn:
            info(f"{len(torn)} files of compiled code were torn and are compiled again.")
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_SH)


def _is_torn(path: Path) -> bool:
    """Whether a file of machine code (ELF) ends before the table that linkers write last."""
    with open(path, "rb") as file:
        header = file.read(ELF_HEADER.size)
    if len(header) < ELF_HEADER.size:
        return True
    magic, offset, entry_bytes, n_entries = ELF_HEADER.unpack(header)
    return bool(magic != b"\x7fELF" or path.stat().st_size < offset + entry_bytes * n_entries)
