"""Whether the encoder may replace the champion: the verdict, its criteria, and old domains."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_pipeline.evaluation.statistics.estimates import Estimate
from ssl_pipeline.evaluation.statistics.gate import Finding
from ssl_pipeline.formatting import NO_VALUE
from ssl_pipeline.registry.domain_losses import DomainTable
from ssl_pipeline.registry.promotion import PromotionRecord
from ssl_pipeline.report.render.table import Table

ANSWERS = {"promoted": "Yes.", "kept": "No.", "undecided": "Undecided."}


@dataclass(frozen=True)
class PromotionSection:
    """The verdict in words, tables, and notes on them."""

    sentence: str
    tables: Sequence[Table]
    notes: Sequence[str]


def promotion_section(record: PromotionRecord) -> PromotionSection:
    """The section of a study that promotes its encoder."""
    promotion = record.promotion
    decision = promotion.decision
    tables = [_criteria_table(decision.findings)] if decision.findings else []
    if record.domains.rows:
        tables.append(_domain_table(record.domains))
    return PromotionSection(
        f"{ANSWERS[decision.verdict]} {decision.reason}",
        tables,
        [promotion.criteria_note, *_transfer_notes(record.domains)],
    )


def _criteria_table(findings: Sequence[Finding]) -> Table:
    rows = [
        (
            each.criterion.name,
            "gain" if each.criterion.kind == "gain" else "keep",
            _bound_text(each),
            _interval_text(each),
            each.outcome,
            NO_VALUE if each.subjects_needed is None else f"{each.subjects_needed:,}",
        )
        for each in findings
    ]
    head = ("criterion", "", "must be above", "found", "outcome", "subjects that would decide")
    caption = (
        "Challenger less champion, paired by subject and seed; of held-out losses, how far below "
        "the largest loss allowed it is"
    )
    return Table(caption, head, rows, text_columns=2)


def _bound_text(finding: Finding) -> str:
    return f"{-finding.criterion.margin:+.3f}" if finding.criterion.margin else "0"


def _interval_text(finding: Finding) -> str:
    contrast = finding.criterion.contrast
    if contrast is None:
        return NO_VALUE
    if finding.low is None or finding.high is None:
        return f"{contrast.mean:+.3f} ({contrast.n_subjects} subjects)"
    interval = f"[{finding.low:+.3f}, {finding.high:+.3f}]"
    return f"{contrast.mean:+.3f} {interval} ({contrast.n_subjects} subjects)"


def _domain_table(table: DomainTable) -> Table:
    """Losses by domain and encoder; of the challenger also retrieval, rank and predictions."""
    targets = list(dict.fromkeys(name for row in table.rows for name in row.prediction_scores))
    rows = [
        (
            row.domain,
            f"{row.n_subjects:,}",
            *(_estimate_text(loss) for loss in row.losses),
            _number(row.retrieval_accuracy[-1], "{:.2f}"),
            _number(row.rankme[-1], "{:.1f}"),
            *(_number(row.prediction_scores.get(name), "{:.2f}") for name in targets),
        )
        for row in table.rows
    ]
    last = ("retrieval", "effective rank", *targets)
    head = ("domain", "held-out subjects", *table.encoders, *last)
    caption = "Held-out loss in the bank of each domain, the oldest encoder first"
    if targets:
        caption += "; of predicted targets R², balanced accuracy or cosine"
    return Table(caption, head, rows)


def _transfer_notes(table: DomainTable) -> list[str]:
    notes = []
    if table.backward:
        notes.append(
            "Backward transfer: since the encoder that brought it in, the loss of an old domain "
            f"rose by {_estimate_text(table.backward)} on average."
        )
    if table.forward:
        notes.append(
            "Forward transfer: in domains that are new, the champion loses "
            f"{_estimate_text(table.forward)} less than random weights."
        )
    return notes


def _estimate_text(estimate: Estimate | None) -> str:
    if estimate is None or estimate.mean is None:
        return NO_VALUE
    if estimate.interval is None:
        return f"{estimate.mean:.3f}"
    low, high = estimate.interval
    return f"{estimate.mean:.3f} [{low:.3f}, {high:.3f}]"


def _number(value: float | None, form: str) -> str:
    return NO_VALUE if value is None else form.format(value)
