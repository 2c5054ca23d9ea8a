"""NiiVue, the viewer of the page: which version, how it is installed, and how it is read.

NiiVue (BSD-2, https://github.com/niivue/niivue) is one JavaScript module that lies beside the
page's own files and is never committed. `python -m ssl_pipeline.review.niivue` takes it from npm
or, where there is no npm, from a wheel whose widget holds the same module as text. Its SHA-256 is
checked when it is installed, and again when it is read to be served. Without it the page draws
slices.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from ssl_pipeline.io.atomic import write_bytes
from ssl_pipeline.progress import info

VERSION = "0.65.0"
SHA256 = "35e7040be726521bdae73f2171df3bf2701cda991c10f8be9929231fceb30272"
FILE = Path(__file__).with_name("page") / "vendor" / f"niivue-{VERSION}.js"
NPM_FILE, WHEEL_FILE = "package/dist/index.min.js", "ipyniivue/static/widget.js"
# Both hold the module as an URI-encoded text, by which NiiVue saves pages of its own.
EMBEDDED_MODULE = re.compile(rb'"(var%20[^"]{1000000,})"')
TIMEOUT_S = 120  # of a download


def read_viewer() -> bytes | None:
    """The module; None where it is not installed, or is not the one that is pinned."""
    content = FILE.read_bytes() if FILE.exists() else b""
    return content if _is_pinned(content) else None


def install_viewer(pip_args: Sequence[str] = ()) -> bool:
    """Take the module from the first source that has it; whether it is there then.

    `pip_args` are options of pip, such as another index.
    """
    npm = ("npm", "pack", "--silent", f"@niivue/niivue@{VERSION}", "--pack-destination")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    wheel = (*pip, "--no-deps", *pip_args, "ipyniivue==2.4.4", "--dest")
    for command, member in ((npm, NPM_FILE), (wheel, WHEEL_FILE)):
        if read_viewer() is not None:
            break
        content = _download(command, member)
        if _is_pinned(content):
            write_bytes(FILE, content)
    return read_viewer() is not None


def _download(command: Sequence[str], member: str) -> bytes:
    """The module in a file of the package that a command puts into a folder; empty without it."""
    with TemporaryDirectory() as folder:
        try:
            subprocess.run([*command, folder], check=True, capture_output=True, timeout=TIMEOUT_S)
            (archive,) = Path(folder).iterdir()
            found = EMBEDDED_MODULE.search(_read_member(archive, member))
        except (OSError, subprocess.SubprocessError, ValueError, KeyError):
            return b""
    return unquote(found[1].decode("ascii")).encode() if found else b""


def _read_member(archive: Path, member: str) -> bytes:
    if archive.suffix == ".whl":
        return zipfile.ZipFile(archive).read(member)
    with tarfile.open(archive) as files:
        file = files.extractfile(member)
        return file.read() if file else b""


def _is_pinned(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == SHA256


if __name__ == "__main__" and not install_viewer(sys.argv[1:]):
    info(
        f"NiiVue {VERSION} is neither in reach by npm nor by pip: the page of a review draws slices"
        " alone, until `python -m ssl_pipeline.review.niivue` has found it."
    )
