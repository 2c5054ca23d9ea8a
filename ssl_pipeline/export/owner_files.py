"""Files of a bundle's owner, which outlive a bundle that is made again in its place.

The model card asks its owner to write a licence into it, so a README that is not as it was
generated is the owner's, and so is every file that no bundle has by itself.
"""

import shutil
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.manifest import (
    BUNDLE_MANIFEST,
    NEW_CARD_FILE,
    README_FILE,
    SELF_TEST_FILE,
    WEIGHTS_FILE,
    read_manifest,
)
from ssl_pipeline.export.model_card import model_card
from ssl_pipeline.io.atomic import TEMPORARY_PREFIX
from ssl_pipeline.progress import info

GENERATED_FILES = (
    *(BUNDLE_MANIFEST, WEIGHTS_FILE, SELF_TEST_FILE, NEW_CARD_FILE),
    training_subjects.FILE_NAME,
)


def copy_owner_files(earlier: Path, bundle: Path) -> None:
    """Copy the owner's files of an earlier bundle into the one that takes its place.

    An edited README stays, and the new model card is put beside it.
    """
    if not earlier.is_dir():
        return
    for path in sorted(earlier.iterdir()):
        is_generated = path.name in GENERATED_FILES or path.name.startswith(TEMPORARY_PREFIX)
        if is_generated or (path.name == README_FILE and not _is_edited(path)):
            continue
        if path.name == README_FILE:
            (bundle / README_FILE).replace(bundle / NEW_CARD_FILE)
            info(f"{path} was edited and stays; the new model card is {earlier / NEW_CARD_FILE}.")
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, bundle / path.name)


def _is_edited(readme: Path) -> bool:
    """Whether a README is not what its bundle's manifest gives."""
    try:
        return readme.read_bytes() != model_card(read_manifest(readme.parent)).encode()
    except UserError:  # a part of the bundle is gone
        return True
