"""Review by people: `ssl-pipeline review`."""

import os
import secrets
import socket
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import uvicorn

from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import check_writable
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import find_foreground
from ssl_pipeline.progress import info
from ssl_pipeline.report.sign_off_page import write_sign_off
from ssl_pipeline.review.audit_log import AuditLog, anchor_of
from ssl_pipeline.review.config import Review
from ssl_pipeline.review.log_entry import check_reader
from ssl_pipeline.review.neighbours import find_neighbours
from ssl_pipeline.review.page_address import PageAddress, write_opening_page
from ssl_pipeline.review.pictures import LABELS, PREDICTION, FindForeground, open_volume
from ssl_pipeline.review.queue import OverlaidScan
from ssl_pipeline.review.server import build_app
from ssl_pipeline.review.session import ReviewSession, VolumeSource
from ssl_pipeline.review.sign_off import sign_off
from ssl_pipeline.volumes import thumbnails
from ssl_pipeline.volumes.geometry import to_canonical
from ssl_pipeline.volumes.inventory import Inventory, Scan
from ssl_pipeline.volumes.pseudonyms import Origin
from ssl_pipeline.volumes.readers import ReadError, Source, read_volume
from ssl_pipeline.volumes.scan_check import size_and_state, source_sha256
from stages.commands.measured_scans import known_embeddings
from stages.core import layout
from stages.core.study import Study
from stages.reviewed import review_queue

TOKEN_BYTES = 32
OPENING_PAGE = "review_page.html"


def verify_log(study: Study, anchor: str) -> None:
    """Check the log of a study's review, also that it goes on from an earlier `anchor`.

    Raises UserError, naming the first line that is not as it was written.
    """
    log = AuditLog(study.pseudonyms.study_folder)
    entries = log.read()
    if anchor:
        log.check_anchor(entries, anchor)
    count = format_count(len(entries), "answer")
    info(f"{log.path}: {count}, as they were written; its anchor is {anchor_of(entries)}.")


def write_sign_off_page(study: Study, out: Path) -> None:
    """Write the page by which a review is signed off.

    Raises UserError where there is no review or inventory, or the log is not as it was written.
    """
    review = _review_with_inventory(study)
    check_writable(out)
    entries = AuditLog(study.pseudonyms.study_folder).read()
    items, now = review_queue(study), datetime.now(UTC)
    write_sign_off(sign_off(study.name, items, entries, review.readers, now), study.title, out)
    info(f"review: {format_count(len(items), 'item')}, {anchor_of(entries)}: {out}")


def serve_review(study: Study, reader: str, address: PageAddress) -> None:
    """Serve the page for one reader until Ctrl-C, and open it where there is a screen.

    Raises UserError as `open_session` does, for an address that is not safe, and a port in use.
    """
    address.check()
    session = open_session(study, reader)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    # Without an access log, which would hold the token.
    config = uvicorn.Config(
        build_app(session, token, address.host),
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    with _listening(address) as connections:
        info(
            f"review: open {address.url(token)} in a browser; from another machine,"
            f" `{address.tunnel}` first. Ctrl-C ends it."
        )
        with _opened_in_browser(study, address.url(token)):
            uvicorn.Server(config).run(sockets=[connections])


def _listening(address: PageAddress) -> socket.socket:
    """A socket where browsers may queue from now on."""
    try:
        return socket.create_server((address.host, address.port))
    except (OSError, OverflowError):
        raise UserError(
            f"{address.host}:{address.port} is no address of this machine, or is taken: choose"
            " another --port, or correct --host."
        ) from None


@contextmanager
def _opened_in_browser(study: Study, url: str) -> Iterator[None]:
    """Have a browser of this screen open an address; nothing where there is no screen."""
    page = study.pseudonyms.study_folder / f"{os.getpid()}_{OPENING_PAGE}"
    try:
        if {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            write_opening_page(page, url)
            webbrowser.open(page.absolute().as_uri())
        yield
    finally:
        page.unlink(missing_ok=True)


def open_session(study: Study, reader: str) -> ReviewSession:
    """The session of a reader. Raises UserError where there is no review, inventory or reader."""
    review = _review_with_inventory(study)
    check_reader(reader)
    scans = {scan.id: scan for scan in Inventory.read(layout.inventory_table(study)).scans}
    origins = study.pseudonyms.origins
    items = review_queue(study)
    thumbnail_file = layout.inventory_table(study).with_name(thumbnails.THUMBNAILS_FILE)
    images = {each for item in items for each in item.images}
    return ReviewSession(
        items,
        AuditLog(study.pseudonyms.study_folder),
        reader,
        review.readers,
        study.pseudonyms.code,
        {
            each: _volume_source(each, scans[each.scan], origins[each.scan], study.preprocess)
            for each in images
        },
        {} if review.blinded else {each.scan: _finding(scans[each.scan]) for each in images},
        find_neighbours(known_embeddings(study), thumbnails.read(thumbnail_file)),
    )


def _review_with_inventory(study: Study) -> Review:
    """The settings of the review. Raises UserError where there is none, or no inventory yet."""
    if study.review is None:
        raise UserError("The study asks for no review: give it a section `review`, such as `{}`.")
    table = layout.inventory_table(study)
    if not table.exists():
        raise UserError(f"{table} is not there: run the stage inventory first.")
    return study.review


def _volume_source(
    image: OverlaidScan, scan: Scan, origin: Origin, preprocess: Preprocess
) -> VolumeSource:
    """How a scan is opened with what lies over it, and the checks that all is as it was found."""
    names = [image.label] if image.label else [name for name, fits in scan.labels.items() if fits]
    overlays = {LABELS: [Path(origin.labels[name]) for name in names]}
    checks = [_unchanged_check(origin.source, scan.sha256)]
    if image.label:
        label = Source(Path(origin.labels[image.label]))
        checks.append(_unchanged_check(label, scan.label_checks[image.label]["sha256"]))
    if image.prediction:
        overlays[PREDICTION] = [image.prediction.file]
        checks.append(_unchanged_check(Source(image.prediction.file), image.prediction.sha256))
    return VolumeSource(
        lambda: all(check() for check in checks),
        partial(
            open_volume,
            origin.source,
            overlays,
            missing_value=scan.missing_value,
            intensity_offset=scan.intensity_offset,
            modality=scan.modality,
            find_foreground=_foreground_finder(scan, origin, preprocess),
        ),
    )


def _unchanged_check(source: Source, sha256: str) -> Callable[[], bool]:
    """Whether a source's files hold this; they are read once for each state that they have."""
    states: set[str] = set()

    def is_unchanged() -> bool:
        try:
            _, state = size_and_state(source)
            if state not in states and source_sha256(source) == sha256:
                states.add(state)
        except (OSError, ReadError):
            return False
        return state in states

    return is_unchanged


def _foreground_finder(scan: Scan, origin: Origin, preprocess: Preprocess) -> FindForeground:
    """How preprocessing finds the body of a scan: by the root's own mask, if it has one."""
    own = scan.masks.get("foreground")
    if own is None:
        return partial(
            find_foreground,
            modality=scan.modality,
            section=preprocess,
            intensity_offset=scan.intensity_offset,
        )
    mask = Source(Path(origin.labels[own["label"]]))
    return lambda volume: to_canonical(read_volume(mask)).data > 0


def _finding(scan: Scan) -> str:
    reason = f": {scan.reason}" if scan.reason else ""
    return f"Quality control: {scan.quality}{reason}"
