"""Wait for the readers' answers that a study asks for, then list and summarise them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline.errors import PendingReviewError
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io import atomic
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.io.records import write_record
from ssl_pipeline.review.agreement import SUMMARY_FILE, summarise_review
from ssl_pipeline.review.audit_log import AuditLog, anchor_of
from ssl_pipeline.review.queue import ReviewItem, awaiting, build_queue
from ssl_pipeline.review.verdicts import decisions_of, standing_answers
from ssl_pipeline.volumes.inventory import Inventory
from ssl_pipeline.volumes.review import Decisions
from stages.core import layout
from stages.core.records import manifest_hash
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    ResourceEstimate,
    assumed,
    counted,
)
from stages.core.stage import StageResult
from stages.core.study import Study

TITLE = "Wait for the readers' answers, and list what they decided"
CONFIG_KEYS = ("review",)
DEPENDS_ON = ("inventory",)
VERSION = 1
DECISIONS_FILE = "reviewed.parquet"
OUTPUTS = (DECISIONS_FILE, SUMMARY_FILE)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = False, False, False
SHARDED, PER_TRIAL = False, False
SCAN_BYTES = 200  # of the tables on disk
BASE_BYTES = 260e6  # a process that reads tables
SCHEMA = pa.schema(dict.fromkeys(("scan", "verdict", "reason", "reader", "sha256"), pa.string()))


def is_needed(study: Study) -> bool:
    """Where the study asks for a review."""
    return study.review is not None


def inputs(study: Study) -> dict[str, str]:
    """The inventory, and the readers' log."""
    log = review_log_hash(study)
    return {"inventory": manifest_hash(study, "inventory"), "review_log": log}


def review_log_hash(study: Study) -> str:
    """Hash of all answers, which the Snakefile uses too.

    Raises UserError where the log is not as it was written.
    """
    return sha256_json(anchor_of(AuditLog(study.pseudonyms.study_folder).read()))


def review_queue(study: Study) -> tuple[ReviewItem, ...]:
    """All that the study asks; nothing where it asks for no review. The inventory must be there."""
    if study.review is None:
        return ()
    scans = Inventory.read(layout.inventory_table(study)).scans
    return build_queue(scans, study.review, study.pseudonyms.code)


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """Two small tables; the time that people take is theirs."""
    scans = len(dataset.scans)
    return ResourceEstimate(
        disk=assumed(SCAN_BYTES * scans, f"{SCAN_BYTES} bytes a scan"),
        files=counted(RECORD_FILE_COUNT + len(OUTPUTS), "two tables"),
        memory=assumed(BASE_BYTES, "tables alone"),
        seconds=assumed(5.0, "without the readers' time"),
    )


def run(study: Study, out: Path) -> StageResult:
    """Write decisions and summary. Raises PendingReviewError where answers are missing."""
    review = study.review
    assert review is not None, "it runs where a study asks for a review"
    entries = AuditLog(study.pseudonyms.study_folder).read()
    items, answers = review_queue(study), standing_answers(entries)
    missing = awaiting(items, answers, review.readers)
    if missing:
        raise PendingReviewError(
            f"{len(missing)} of {format_count(len(items), 'item')} await a reader: `ssl-pipeline"
            " review --config STUDY --reader NAME` asks about them, then run the same command"
            " again."
        )
    table, summary = out / DECISIONS_FILE, out / SUMMARY_FILE
    decisions = decisions_of(answers)
    _write_decisions(table, decisions)
    write_record(summary, summarise_review(items, answers, anchor_of(entries)))
    said = f"{format_count(len(items), 'item')} answered, {len(decisions.scans)} decisions on scans"
    return StageResult([table, summary], said)


def _write_decisions(path: Path, decisions: Decisions) -> None:
    rows = [
        {"scan": code, "verdict": each.verdict, "reason": each.reason}
        | {"reader": each.reader, "sha256": each.sha256}
        for code, each in sorted(decisions.scans.items())
    ]
    with atomic.atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)
