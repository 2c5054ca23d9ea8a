"""How the run fared: the verdict that it recorded, and its signs as curves and in words.

The verdict is the run's own, of the dials that it had: those of the study may have changed since.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_pipeline.atomic import read_json
from ssl_pipeline.flight.signs import SIGNS
from ssl_pipeline.flight.verdict import Row, series
from ssl_pipeline.report.figures import Picture, panel
from ssl_pipeline.report.tables import Table
from ssl_pipeline.training.metrics import read

# A panel is a title and its lines, a sign each, with a word of the legend where there are several.
PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("skill against in-painting", {"skill": ""}),
    ("effective rank, spread", {"rank_share": "rank over its ceiling", "spread": "spread"}),
    ("body region by neighbours", {"region": "embeddings", "region_chance": "guessing"}),
    (
        "second views found",
        {
            "matched": "embeddings",
            "matched_by_histogram": "histograms",
            "matched_chance": "guessing",
        },
    ),
    (
        "loss between places",
        {
            "local_real": "real",
            "local_empty": "empty crops",
            "local_swapped": "swapped",
            "local_chance": "all alike",
        },
    ),
    ("gradient, contrast over rebuilding", {"gradient_ratio": ""}),
    ("share of time waiting for data", {"waiting": ""}),
    ("model FLOPs utilisation", {"mfu": ""}),
)


@dataclass(frozen=True)
class Fared:
    """What the page says of a run."""

    verdict: str
    reason: str
    panels: Sequence[Picture]
    signs: Table


def fared(pretrain: Path) -> Fared | None:
    """Of the run that `run.json` names; None where there is none, or it left no record."""
    record, provenance = pretrain / "run.json", pretrain / "provenance.json"
    if not (record.exists() and provenance.exists()):
        return None
    trained = read_json(provenance)["trained"]
    rows = read(pretrain / read_json(record)["folder"] / "metrics.jsonl")
    shown = [
        (title, {s: w for s, w in lines.items() if series(rows, s)}) for title, lines in PANELS
    ]
    panels = [panel(rows, title, lines) for title, lines in shown if lines]
    return Fared(trained["verdict"], trained["reason"], panels, _signs(rows))


def _signs(rows: Sequence[Row]) -> Table:
    """The last value of every sign, and what it means."""
    last = {sign: values[-1] for sign in SIGNS if (values := series(rows, sign))}
    told = [(sign, f"{value:.4g}", SIGNS[sign]) for sign, value in last.items()]
    return Table("Signs at the end of the run", ("sign", "value", "what it is"), told, wraps=True)
