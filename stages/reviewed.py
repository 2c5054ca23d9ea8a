"""Wait for the readers' answers that a study asks for, then list and summarise them."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline.errors import PendingReviewError
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io import atomic
from ssl_pipeline.io.atomic import sha256_file, sha256_json
from ssl_pipeline.io.records import write_record
from ssl_pipeline.review.agreement import SUMMARY_FILE, summarise_review
from ssl_pipeline.review.audit_log import AuditLog, anchor_of
from ssl_pipeline.review.log_entry import Question
from ssl_pipeline.review.predictions import (
    PREDICTIONS_TABLE,
    check_predictions,
    read_predictions,
)
from ssl_pipeline.review.queue import ReviewItem, awaiting, build_queue
from ssl_pipeline.review.verdicts import decisions_of, standing_answers
from ssl_pipeline.volumes.config import resolve_path
from ssl_pipeline.volumes.inventory import Inventory
from ssl_pipeline.volumes.review import Decision, Decisions
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
VERSION = 2
DECISIONS_FILE = "reviewed.parquet"
OUTPUTS = (DECISIONS_FILE, SUMMARY_FILE)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = False, False, False
SHARDED, PER_TRIAL = False, False
SCAN_BYTES = 200  # of the tables on disk
BASE_BYTES = 260e6  # a process that reads tables
COLUMNS = ("question", "item", "verdict", "reason", "reader", "sha256")
SCHEMA = pa.schema(dict.fromkeys(COLUMNS, pa.string()))


def is_needed(study: Study) -> bool:
    """Where the study asks for a review."""
    return study.review is not None


def inputs(study: Study) -> dict[str, str]:
    """The inventory, and the readers' log."""
    log = review_log_hash(study)
    return {"inventory": manifest_hash(study, "inventory"), "review_log": log}


def review_log_hash(study: Study) -> str:
    """Hash of all answers, and of the predictions that are asked about; the Snakefile uses it too.

    Raises UserError where the log is not as it was written, or no prediction is there.
    """
    anchor = anchor_of(AuditLog(study.pseudonyms.study_folder).read())
    folder = predictions_folder(study)
    if folder is None:
        return sha256_json(anchor)
    check_predictions(folder)
    return sha256_json([anchor, sha256_file(folder / PREDICTIONS_TABLE)])


def readers_decisions(study: Study) -> Decisions:
    """What readers decided. Raises UserError where the log is not as it was written."""
    return decisions_of(AuditLog(study.pseudonyms.study_folder).read())


def predictions_folder(study: Study) -> Path | None:
    """Where the predictions are that readers are asked about; None where the study names none."""
    if study.review is None or study.review.predictions is None:
        return None
    return resolve_path(study.review.predictions.path, study.source_folder)


def review_queue(study: Study) -> tuple[ReviewItem, ...]:
    """All that the study asks; nothing where it asks for no review. The inventory must be there.

    Raises UserError as `read_predictions` does.
    """
    if study.review is None:
        return ()
    scans = Inventory.read(layout.inventory_table(study)).scans
    folder = predictions_folder(study)
    predictions = read_predictions(folder, scans) if folder else []
    return build_queue(scans, study.review, study.pseudonyms.code, predictions)


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
    rows = _decision_rows(decisions_of(answers))
    with atomic.atomic_write(table) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)
    write_record(summary, summarise_review(items, answers, anchor_of(entries)))
    said = f"{format_count(len(items), 'item')} answered, {format_count(len(rows), 'decision')}"
    return StageResult([table, summary], said)


def _decision_rows(decisions: Decisions) -> list[dict[str, str]]:
    """A row of COLUMNS for each decision on a scan, a label or a prediction."""
    by_question: dict[Question, Mapping[str, Decision]] = {
        "usable": decisions.scans,
        "label_fits": decisions.labels,
        "prediction_correct": decisions.predictions,
    }
    return [
        {"question": question, "item": item, "verdict": each.verdict, "reason": each.reason}
        | {"reader": each.reader, "sha256": each.sha256}
        for question, decided in by_question.items()
        for item, each in sorted(decided.items())
    ]
