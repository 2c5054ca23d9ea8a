"""Evidence on the review by people: `make bench-review`, or one part of it.

`python -m tests.bench.review page`: how long a reader waits for the next of 50 real CTs (public
data under `$SSL_PIPELINE_DATA`) in a headless Chromium, by keys. `... log`: random changes to a
log that are not found, and two processes that append at once. `... kappa`: how often the interval
of Cohen's kappa holds a simulated truth. `... requests`: 10,000 odd requests. A few minutes on one
core; rows go to `build/bench/review.json`.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from playwright.sync_api import Page, sync_playwright

from ssl_pipeline.review.audit_log import AuditLog
from ssl_pipeline.review.config import Review
from ssl_pipeline.review.server import build_app
from ssl_pipeline.volumes.config import Splits
from stages.commands.review import open_session
from stages.core.runner import run_stage
from stages.core.study import Study
from stages.core.study_file import load_study
from tests.bench.goal_rows import OUT, GoalRow, run_parts, write_rows
from tests.review.conftest import PERSON, TOKEN, answer_of, client_of, serve, write_asked_study
from tests.review.test_agreement import COVERAGE, kappa_coverage
from tests.review.test_audit_log import append_in_processes, count_missed
from tests.review.test_browser import CHROMIUM, GRAPHICS, press
from tests.review.test_fuzz import odd_exchanges, private_words

STUDY = Path("workflows/studies/openkbp.yaml")
FIFTY = "pt_1[1-6]?.nii.gz"  # CTs of 50 people
LOOK_S, MAX_WAIT_MS = 1.0, 500  # that a reader looks at a case, and may wait for the next one
MUTATIONS, ANSWERS, REQUESTS, ROUNDS = 1000, 500, 10_000, 2000
READERS = ((50, 0.4, 0.9), (150, 0.4, 0.9), (300, 0.2, 0.8))  # items, share of bad ones, of right


def bench_page() -> None:
    """Write how long the next case takes, where the browser draws in 3D and where it has slices."""
    rows = []
    for view, graphics in GRAPHICS.items():
        waits = _waits(_fifty_scans(OUT / "review"), view, graphics)
        print(f"{view}: " + " ".join(f"{wait:.0f}" for wait in waits), "ms")
        high = float(np.percentile(waits, 95))
        rows.append(
            GoalRow(
                f"key to next of {len(waits) + 1} real CTs, {view}: median, 95 %, longest",
                f"{np.median(waits):.0f}, {high:.0f} and {max(waits):.0f} ms",
                f"95th below {MAX_WAIT_MS} ms",
                high < MAX_WAIT_MS,
            )
        )
    write_rows("review", "page", rows)


def _fifty_scans(folder: Path) -> Study:
    """A study that asks about 50 CTs, with its inventory and without answers."""
    whole = load_study(STUDY)
    root = whole.data.roots[0].model_copy(update={"include": FIFTY})
    splits = Splits.model_validate(
        {"fractions": {"val": 0, "test": 0}, "duplicate_threshold": None}
    )
    study = whole.model_copy(
        update={
            "data": whole.data.model_copy(update={"roots": (root,), "splits": splits}),
            "tasks": {},
            "review": Review(accepted_share=1, planted_share=0, repeated_share=0),
            "output": str(folder / "study"),
            "private": str(folder / "private"),
        }
    )
    for file in study.pseudonyms.study_folder.glob("*review_log*"):
        file.unlink()
    run_stage("inventory", study, {})
    return study


def _waits(study: Study, view: str, graphics: list[str]) -> list[float]:
    """Milliseconds from each answer until the next case is drawn."""
    app = build_app(open_session(study, "anna"), TOKEN)
    with serve(app) as port, sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *graphics]
        )
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.goto(f"http://127.0.0.1:{port}/?token={TOKEN}")
        tab.wait_for_selector(f"body[data-item][data-view='{view}']")
        waits = _answer_all(tab)
        browser.close()
    answered = len(AuditLog(study.pseudonyms.study_folder).read())
    assert answered == len(waits) + 1, "after the last answer nothing is drawn"
    return waits


def _answer_all(tab: Page) -> list[float]:
    waits = []
    while True:
        tab.wait_for_timeout(LOOK_S * 1e3)
        began = time.perf_counter()
        press(tab, "ar"[len(waits) % 2])
        if tab.get_attribute("body", "data-item") == "none":
            return waits
        waits.append((time.perf_counter() - began) * 1e3)


def bench_log() -> None:
    """Write how many changes to a log are not found, and what two writers at once leave."""
    with TemporaryDirectory() as folder:
        log = AuditLog(Path(folder))
        for number in range(10):
            log.append("anna", answer_of(dwell_s=number))
        missed = count_missed(log, MUTATIONS)
    with TemporaryDirectory() as folder:
        log = AuditLog(Path(folder))
        append_in_processes(log, ANSWERS)  # raises unless both end well and the chain is whole
        lines = len(log.read())
    rows = [
        GoalRow(
            "random edits, deletions, swaps, insertions and cuts of a log that are found",
            f"{MUTATIONS - missed:,} of {MUTATIONS:,}",
            "all",
            missed == 0,
        ),
        GoalRow(
            f"lines of an unbroken chain after two processes of {ANSWERS} answers each",
            f"{lines:,}",
            f"{2 * ANSWERS:,}",
            lines == 2 * ANSWERS,
        ),
    ]
    write_rows("review", "log", rows)


def bench_kappa() -> None:
    """Write how often the interval of 95 % holds the kappa that readers were simulated with."""
    low, high = COVERAGE
    rows = []
    for items, bad, right in READERS:
        held = kappa_coverage(items, bad, right, ROUNDS)
        measure = f"coverage of kappa: {items} items, {bad:.0%} bad, readers right in {right:.0%}"
        rows.append(
            GoalRow(measure, f"{held:.1%}", f"{low:.0%} to {high:.0%}", low <= held <= high)
        )
    write_rows("review", "kappa", rows)


def bench_requests() -> None:
    """Write how many odd requests end in an error of the server, or tell what is private."""
    errors = leaks = 0
    with TemporaryDirectory(prefix=PERSON) as folder:
        study = write_asked_study(Path(folder))
        browser = client_of(study)
        browser.get("/", params={"token": TOKEN})
        with serve(build_app(open_session(study, "anna"), TOKEN)) as port:
            for _, found in odd_exchanges(browser, port, REQUESTS):
                errors += found[9:10] not in (b"2", b"3", b"4")
                leaks += bool(private_words(found, study.folder))
        log = AuditLog(study.pseudonyms.study_folder)
        log.read()  # raises unless it is as it was written
        leaks += PERSON in log.path.read_text() if log.path.exists() else 0
    rows = [
        GoalRow(
            f"errors of the server in {REQUESTS:,} odd requests", str(errors), "0", errors == 0
        ),
        GoalRow("answers and logs with a planted name, path or file", str(leaks), "0", leaks == 0),
    ]
    write_rows("review", "requests", rows)


PARTS = {"log": bench_log, "kappa": bench_kappa, "requests": bench_requests, "page": bench_page}


if __name__ == "__main__":
    run_parts(PARTS, __doc__)
