"""Files of a bundle's owner, which outlive a bundle that is made again in its place.

The model card asks its owner to write a licence into it, so a README that is not as it was
generated is the owner's, and so is every file that no bundle has by itself.
"""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import TEMPORARY_PREFIX
from ssl_pipeline.progress import info

README_FILE = "README.md"
NEW_CARD_FILE = "README.new.md"  # the model card, where the README is its owner's


def copy_owner_files(
    earlier: Path,
    bundle: Path,
    generated_files: Collection[str],
    card_of: Callable[[Path], str],
) -> None:
    """Copy the owner's files of an earlier bundle into the one that takes its place.

    `generated_files` are the names of a bundle's own files; `card_of` gives the model card of a
    bundle, and raises UserError where a part of that is gone. An edited README stays, and the new
    model card is put beside it.
    """
    if not earlier.is_dir():
        return
    for path in sorted(earlier.iterdir()):
        is_generated = path.name in generated_files or path.name.startswith(TEMPORARY_PREFIX)
        if path.name == README_FILE:
            if not _is_edited(path, card_of):
                continue
            (bundle / README_FILE).replace(bundle / NEW_CARD_FILE)
            info(f"{path} was edited and stays; the new model card is {earlier / NEW_CARD_FILE}.")
        elif is_generated or path.name == NEW_CARD_FILE:
            continue
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, bundle / path.name)


def _is_edited(readme: Path, card_of: Callable[[Path], str]) -> bool:
    """Whether a README is not what its bundle's manifest gives."""
    try:
        return readme.read_bytes() != card_of(readme.parent).encode()
    except UserError:  # a part of the bundle is gone
        return True
