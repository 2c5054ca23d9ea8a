"""Where the page of a review listens: this machine alone, or others too, and then with TLS only."""

import ssl
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import write_text
from ssl_pipeline.io.permissions import private_files

THIS_MACHINE = ("127.0.0.1", "localhost")
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104, which is refused


@dataclass(frozen=True)
class PageAddress:
    """Name and port of the page, and the files of its certificate, where it has one."""

    host: str = THIS_MACHINE[0]
    port: int = 8765
    certificate: Path | None = None  # PEM, with those of its issuers
    key: Path | None = None  # PEM, without a password

    def check(self) -> None:
        """Raise UserError where other machines could listen in, or the certificate is none."""
        if self.host == ALL_ADDRESSES or not self.host or ":" in self.host:
            raise UserError(
                f"--host is {self.host!r}: give the name or the IPv4 address by which a browser"
                " reaches this machine."
            )
        if (self.certificate is None) != (self.key is None):
            raise UserError("--certificate and --key are a pair: give both, or none.")
        if self.certificate is None and self.host not in THIS_MACHINE:
            raise UserError(
                f"--host {self.host} lets other machines in, which only TLS protects: give"
                " --certificate and --key, or leave --host out and run"
                f" `{self.tunnel}` on the other machine."
            )
        self._check_certificate()

    @property
    def tunnel(self) -> str:
        """The command that brings the page to another machine."""
        own = THIS_MACHINE[0]
        return f"ssh -L {self.port}:{own}:{self.port} HOST"

    def url(self, token: str) -> str:
        """The address that a browser opens first."""
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{self.host}:{self.port}/?token={token}"

    def _check_certificate(self) -> None:
        if self.certificate is None or self.key is None:
            return
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                self.certificate, self.key, password=""
            )
        except (OSError, ssl.SSLError) as error:
            raise UserError(
                f"--certificate {self.certificate} and --key {self.key} cannot be used"
                f" ({error.strerror or error}): give two PEM files that belong together, the key"
                " without a password."
            ) from None


def write_opening_page(path: Path, url: str) -> None:
    """Write a page, for its owner's eyes alone, that leads a browser to `url`.

    The token is a secret, and every user can see the words of the command that opens a browser.
    """
    with private_files():
        write_text(
            path,
            '<!doctype html><meta charset="utf-8"><title>Review</title>'
            f'<meta http-equiv="refresh" content="0;url={escape(url)}">',
        )
