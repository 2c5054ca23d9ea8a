"""TLS credentials of one run, by which its scheduler, workers and client know each other.

Dask runs what it is sent: whoever may connect to a scheduler or a worker can run code and read
files as its user, also another account of the same machine. So each run makes a key of its own, and
only processes that hold it are let in. Workers of other nodes read it from a folder that no other
user can enter, on the disk that the nodes share.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import TEMPORARY_PREFIX
from ssl_pipeline.io.permissions import check_private_folder, private_files

if TYPE_CHECKING:
    from distributed import Security

CERTIFICATE, KEY = "certificate.pem", "key.pem"


def new_credentials() -> "Security":
    """Credentials that no other run has. Raises UserError where they cannot be made."""
    if find_spec("cryptography") is None:
        raise UserError(
            "Several workers need the package cryptography, without which other users could run "
            "code as you: `pip install 'ssl-pipeline[pipeline]'`, or set dask.workers: 1."
        )
    from distributed import Security

    made: Security = Security.temporary()
    return made


@contextmanager
def credentials_folder(credentials: "Security", parent: Path) -> Iterator[Path]:
    """A new folder below `parent` with the credentials, which is removed at the end.

    It has a temporary name, so that what a killed process left is removed by the next one.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{TEMPORARY_PREFIX}tls-", dir=parent) as made:
        folder = Path(made)
        own = credentials.get_tls_config_for_role("worker")
        with private_files():
            (folder / CERTIFICATE).write_text(own["cert"])
            (folder / KEY).write_text(own["key"])
        yield folder


def read_credentials(folder: Path) -> "Security":
    """The credentials in a folder. Raises UserError where other users can read or change them."""
    from distributed import Security

    check_private_folder(folder)
    certificate = (folder / CERTIFICATE).read_text()
    return Security(
        require_encryption=True,
        tls_ca_file=certificate,
        tls_worker_cert=certificate,
        tls_worker_key=(folder / KEY).read_text(),
    )
