"""The sign-off of a review as one HTML page, to be printed, signed and filed.

It loads nothing and has no script, and its style is for paper too: the browser's "print" makes the
PDF. Names of readers are the codes that they sign with.
"""

from pathlib import Path

from ssl_pipeline.formatting import format_with_interval
from ssl_pipeline.io.atomic import write_text
from ssl_pipeline.report.render.templates import template_environment
from ssl_pipeline.review.agreement import ReaderEstimate
from ssl_pipeline.review.sign_off import ItemCount, SignOff

QUESTIONS = {
    "usable": "Fit to train on?",
    "same_subject": "Do both scans show one person?",
    "label_fits": "Does the label fit the scan?",
    "prediction_correct": "Is the segmentation correct?",
}
ORIGINS = {
    "accepted": "accepted by quality control",
    "repaired": "repaired by quality control",
    "rejected": "rejected by quality control",
    "unused": "not used",
    "copy": "suspected copies",
    "merged": "names that one visit joins",
    "fitting_label": "labels that fit",
    "empty_label": "empty labels",
    "off_grid_label": "labels on another grid",
    "prediction": "predictions",
    "planted": "corrupted on purpose",
}
OUTCOMES = {
    ("usable", "accept"): "used after all",
    ("usable", "reject"): "not used",
    ("same_subject", "reject"): "two persons",
    ("label_fits", "accept"): "label used after all",
    ("label_fits", "reject"): "label not used",
    ("prediction_correct", "reject"): "segmentation wrong",
}


def write_sign_off(sign_off: SignOff, title: str, path: Path) -> None:
    """Write the page; `title` is the study's, or empty."""
    write_text(path, render_sign_off(sign_off, title))


def render_sign_off(sign_off: SignOff, title: str) -> str:
    """The page as HTML."""
    summary = sign_off.readers
    pairs = [each for each in summary.agreement if each.readers[0] != each.readers[1]]
    own = {each.readers[0]: each.kappa for each in summary.agreement if each not in pairs}
    return (
        template_environment()
        .get_template("sign_off.html")
        .render(
            it=sign_off,
            title=title,
            created_at=f"{sign_off.created_at:%Y-%m-%d %H:%M} UTC",
            items=[_item_row(count) for count in sign_off.items],
            overrides=[
                (
                    each.item,
                    ORIGINS[each.software_verdict],
                    OUTCOMES[each.answer.question, each.answer.answer],
                    ", ".join(code.replace("_", " ") for code in each.answer.codes),
                    each.answer.reader,
                    f"{each.answer.time:%Y-%m-%d %H:%M} UTC",
                )
                for each in sign_off.overrides
            ],
            readers=[
                (
                    each.reader,
                    each.answers,
                    _estimate(each.accepted),
                    _estimate(each.planted_rejected),
                    _estimate(own.get(each.reader)),
                )
                for each in summary.readers
            ],
            pairs=[(" and ".join(each.readers), _estimate(each.kappa)) for each in pairs],
        )
    )


def _item_row(count: ItemCount) -> tuple[str | int, ...]:
    again = ", again" if count.repeated else ""
    return (QUESTIONS[count.question], f"{ORIGINS[count.origin]}{again}", *count[3:])


def _estimate(estimate: ReaderEstimate | None) -> str:
    """A share or kappa with its interval, and of how many items."""
    if estimate is None:
        return format_with_interval(None, None, None)
    value, low, high, items = estimate
    return f"{format_with_interval(value, low, high)} of {items:,}"
