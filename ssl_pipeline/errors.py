"""`UserError`, for errors that the user can fix, and helpers for its messages.

Everything else that is raised is a bug and keeps its traceback. Only the process of a command
(stages/core/process.py) catches `UserError`: it prints the sentence and ends with exit code 2.
`PendingReviewError` is for work that cannot go on before people have answered: exit code 3.
"""

import difflib
import errno
from collections.abc import Iterable

# A limit on the size of files (`ulimit -f`) is a quota, too.
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS)
WRONG_KIND_ERRNOS = (errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST)


class UserError(Exception):
    """One sentence: what is wrong, where, and what to do about it."""


class PendingReviewError(Exception):
    """One sentence: how many answers of readers are missing, and where they are given."""


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk is full, or a quota used up; libraries say it in words of their own."""
    text = str(error).lower()
    return (
        getattr(error, "errno", None) in DISK_FULL_ERRNOS
        or "no space left" in text
        or "quota exceeded" in text
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory did not suffice, of the processor or of a GPU; torch has its own words."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text
    )


def access_error_sentence(error: BaseException) -> str:
    """What to do where a file's rights, or its disk, refuse this account; else empty.

    Also where a folder lies in place of a file, or a file in place of a folder.
    """
    if not isinstance(error, OSError):
        return ""
    if error.errno in WRONG_KIND_ERRNOS:
        place = error.filename2 or error.filename or "A file"
        return (
            f"{place} is a folder in place of a file, or lies below a file in place of a folder: "
            "move that away."
        )
    if error.errno not in NO_ACCESS_ERRNOS:
        return ""
    return (
        f"{error.filename or 'A file'} refuses this account ({error.strerror}): correct its rights "
        "or its owner, or give the study another `output`."
    )


def suggest_name(name: str, candidates: Iterable[str]) -> str:
    """End of a message about an unknown name: the closest known one, or all of them.

    >>> suggest_name("spacng_mm", ["spacing_mm", "order"])
    'did you mean spacing_mm?'
    """
    names = sorted(candidates)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}."
