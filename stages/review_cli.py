"""The commands of `ssl-pipeline review`, as those of `stages/cli.py` are declared."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from stages.cli_options import EXAMPLE_STUDY, INSPECT_GROUP, StudyFile
from stages.core.study_file import load_study

review_app = App(
    "review",
    help_format="plaintext",
    group=INSPECT_GROUP,
    help_epilogue=f"""Examples:
  ssl-pipeline review --config {EXAMPLE_STUDY} --reader anna
  ssl-pipeline review verify --config {EXAMPLE_STUDY}
  ssl-pipeline review sign-off --config {EXAMPLE_STUDY} --out sign_off.html""",
)


@review_app.default
def serve_review(
    *,
    config: StudyFile,
    reader: Annotated[str, Parameter(metavar="NAME", help="short code, which results say")],
    port: Annotated[int, Parameter(help="of this machine")] = 8765,
    host: Annotated[
        str, Parameter(help="name of this machine that other machines use; with TLS only")
    ] = "127.0.0.1",
    certificate: Annotated[
        Path | None, Parameter(metavar="FILE", help="for TLS: PEM file, with its issuers")
    ] = None,
    key: Annotated[
        Path | None, Parameter(metavar="FILE", help="of the certificate: PEM file")
    ] = None,
) -> None:
    """Ask a reader about scans, on a page of this machine."""
    from ssl_pipeline.review.page_address import PageAddress
    from stages.commands.review import serve_review

    serve_review(load_study(config), reader, PageAddress(host, port, certificate, key))


@review_app.command(name="verify")
def verify_review(
    *,
    config: StudyFile,
    anchor: Annotated[
        str, Parameter(metavar="NUMBER:HASH", help="as an earlier check printed it")
    ] = "",
) -> None:
    """Check that no line of the review's log was changed, removed, added or moved."""
    from stages.commands.review import verify_log

    verify_log(load_study(config), anchor)


@review_app.command(name="sign-off")
def sign_off_review(
    *,
    config: StudyFile,
    out: Annotated[Path, Parameter(metavar="FILE", help="HTML page to write")],
) -> None:
    """Write what was asked and decided as a page to be printed, signed and filed."""
    from stages.commands.review import write_sign_off_page

    write_sign_off_page(load_study(config), out)
