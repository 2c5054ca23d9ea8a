"""Folders and files that other accounts of a machine can neither read nor change.

Whoever can write into a folder can replace what lies there, and whoever can write into the folder
above can replace the folder. Modes are set here, because a umask may let everybody in.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl_pipeline.errors import UserError

OTHERS_PERMISSIONS = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private_folder(folder: Path) -> None:
    """Make a folder that its owner alone can enter (mode 0700), or check that it is one.

    Raises UserError where it is there already and is not.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(stat.S_IRWXU)
    check_private_folder(folder)


def check_private_folder(folder: Path) -> None:
    """Raise UserError where a folder belongs to another user, or other users can enter it."""
    if not _is_own(folder):
        raise UserError(f"{folder} belongs to another user: choose a folder of your own.")
    if not is_private_folder(folder):
        raise UserError(f"Other users can read {folder} or write there: `chmod 700 {folder}`.")


def is_private_folder(folder: Path) -> bool:
    """Whether a folder belongs to this user and no other can enter it."""
    return _is_own(folder) and not folder.stat().st_mode & OTHERS_PERMISSIONS


def _is_own(folder: Path) -> bool:
    """Whether a folder, and the link to it if there is one, belongs to this user."""
    return {folder.stat().st_uid, folder.lstat().st_uid} == {os.geteuid()}


def refuse_open_parent(folder: Path) -> None:
    """Raise UserError where every user can rename a folder, or one that it lies in.

    In a folder with the sticky bit, such as /tmp, only the owner can.
    """
    for parent in folder.absolute().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise UserError(
                f"Every user can replace {folder}, because all can write into {parent}: "
                f"`chmod o-w {parent}`, or choose another `output`."
            )


@contextmanager
def private_files() -> Iterator[None]:
    """Files and folders that this process makes in the block are for their owner alone."""
    before = os.umask(OTHERS_PERMISSIONS)
    try:
        yield
    finally:
        os.umask(before)


def forbid_others_to_write() -> None:
    """Whatever this process and its children make from now on, no other user can change."""
    os.umask(os.umask(OTHERS_PERMISSIONS) | OTHERS_WRITE)
