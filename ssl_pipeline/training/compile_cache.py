"""Where torch keeps compiled code: a folder of this user alone.

torch's own choice is a folder for temporary files with a name that others can foresee. Whoever
makes that folder first decides which code the training loads.
"""

import os
import tempfile
from pathlib import Path

from ssl_pipeline.io.permissions import make_private_folder

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # torch reads it


def use_private_compile_cache() -> None:
    """Set the folder of compiled code, unless the user has set one.

    Raises UserError where the folder is there already, but is not private.
    """
    if os.environ.get(CACHE_VARIABLE):
        return
    folder = Path(tempfile.gettempdir()) / f"torch-compiled-{os.geteuid()}"
    make_private_folder(folder)
    os.environ[CACHE_VARIABLE] = str(folder)
