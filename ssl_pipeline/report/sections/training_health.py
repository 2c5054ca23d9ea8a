"""How the run fared: the verdict that it recorded, and its signs as curves and in words.

The verdict is the run's own, of the dials that it had: those of the study may have changed since.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_pipeline.io.atomic import read_json
from ssl_pipeline.monitoring.diagnosis import MetricValues, metric_series
from ssl_pipeline.monitoring.metrics_registry import METRICS
from ssl_pipeline.report.render.figures import Picture, log_panel
from ssl_pipeline.report.sections.tables import Table
from ssl_pipeline.training.metrics_log import read_metrics

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
class TrainingHealth:
    """What the page says of a run."""

    diagnosis: str
    reason: str
    panels: Sequence[Picture]
    metrics: Table


def training_health(pretrain_folder: Path) -> TrainingHealth | None:
    """Of the run that `run.json` names; None where there is none, or it left no record."""
    record, provenance = pretrain_folder / "run.json", pretrain_folder / "provenance.json"
    if not (record.exists() and provenance.exists()):
        return None
    trained = read_json(provenance)["trained"]
    rows = read_metrics(pretrain_folder / read_json(record)["folder"] / "metrics.jsonl")
    shown = [
        (title, {s: w for s, w in lines.items() if metric_series(rows, s)})
        for title, lines in PANELS
    ]
    panels = [log_panel(rows, title, lines) for title, lines in shown if lines]
    return TrainingHealth(trained["verdict"], trained["reason"], panels, _metrics_table(rows))


def _metrics_table(rows: Sequence[MetricValues]) -> Table:
    """The last value of every sign, and what it means."""
    last = {sign: values[-1] for sign in METRICS if (values := metric_series(rows, sign))}
    told = [(sign, f"{value:.4g}", METRICS[sign]) for sign, value in last.items()]
    return Table(
        "Signs at the end of the run", ("sign", "value", "what it is"), told, can_wrap=True
    )
