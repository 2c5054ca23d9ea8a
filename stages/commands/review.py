"""Review by people: `ssl-pipeline review`."""

from ssl_pipeline.formatting import format_count
from ssl_pipeline.progress import info
from ssl_pipeline.review.audit_log import AuditLog
from stages.core.study import Study


def verify_log(study: Study, anchor: str) -> None:
    """Check the log of a study's review, also that it goes on from an earlier `anchor`.

    Raises UserError, naming the first line that is not as it was written.
    """
    log = AuditLog(study.pseudonyms.study_folder)
    if anchor:
        log.check_anchor(anchor)
    count = format_count(len(log.read()), "answer")
    info(f"{log.path}: {count}, as they were written; its anchor is {log.anchor()}.")
