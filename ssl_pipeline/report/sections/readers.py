"""Tables of a review: what each reader did, and how far readers agree."""

from ssl_pipeline.report.render.table import Table
from ssl_pipeline.review.agreement import ReaderEstimate, ReviewSummary


def reader_tables(summary: ReviewSummary) -> list[Table]:
    """The readers, and their agreement where any item has two answers."""
    rows = [
        (
            each.reader,
            f"{each.answers:,}",
            _estimate_text(each.accepted),
            _estimate_text(each.planted_rejected),
            f"{each.median_dwell_s:.1f}",
        )
        for each in summary.readers
    ]
    head = ("reader", "answers", "accepted", "planted defects rejected", "median time (s)")
    tables = [Table(f"Readers of {summary.items:,} items, with intervals of 95 %", head, rows)]
    pairs = [
        (
            f"{first} twice" if first == second else f"{first} and {second}",
            _estimate_text(each.kappa),
        )
        for each in summary.agreement
        for first, second in [each.readers]
    ]
    caption = "Agreement of readers on items (Cohen's kappa)"
    return [*tables, Table(caption, ("readers", "kappa"), pairs)] if pairs else tables


def _estimate_text(estimate: ReaderEstimate) -> str:
    if estimate.value is None:
        return f"not defined (n = {estimate.items:,})"
    return (
        f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}] (n = {estimate.items:,})"
    )
