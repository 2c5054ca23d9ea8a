"""Training health: the diagnosis that the run recorded, and its metrics as curves and a table.

The diagnosis is the run's own, under its settings: those of the study may have changed since.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_pipeline.monitoring.diagnosis import MetricValues, metric_series
from ssl_pipeline.report.data.report_data import ReportData
from ssl_pipeline.report.render.figures import Picture, log_panel
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.training.metrics_registry import METRICS, metric_text

# A panel: title, and its lines by metric, with a word for the legend where there are several.
PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("reconstruction skill against in-painting", {"reconstruction_skill": ""}),
    (
        "effective rank, spread",
        {"rankme_share": "rank over its maximum", "dimension_std": "spread"},
    ),
    (
        "body region by nearest neighbours",
        {"region_accuracy": "embeddings", "region_chance": "chance"},
    ),
    (
        "second views retrieved",
        {
            "retrieval_accuracy": "embeddings",
            "histogram_retrieval": "histograms",
            "retrieval_chance": "chance",
        },
    ),
    (
        "local contrastive loss",
        {
            "local_contrast_real": "real",
            "local_contrast_empty": "empty crops",
            "local_contrast_swapped": "swapped",
            "local_contrast_chance": "chance",
        },
    ),
    ("gradient norm, contrast over reconstruction", {"gradient_ratio": ""}),
    ("share of time waiting for data", {"data_wait": ""}),
    ("model FLOPs utilisation", {"mfu": ""}),
)


@dataclass(frozen=True)
class TrainingHealth:
    """Diagnosis, curves and metrics of a run."""

    diagnosis: str
    reason: str
    panels: Sequence[Picture]
    metrics: Table

    @property
    def title(self) -> str:
        """The diagnosis in words."""
        return self.diagnosis.replace("_", " ")


def training_health(data: ReportData) -> TrainingHealth | None:
    """Of the run that trained the encoder; None where there is none."""
    if data.run is None:
        return None
    rows = data.run.metrics
    shown = [
        (title, {s: w for s, w in lines.items() if metric_series(rows, s)})
        for title, lines in PANELS
    ]
    panels = [log_panel(rows, title, lines) for title, lines in shown if lines]
    reason = diagnosis_reason(data)
    return TrainingHealth(data.run.record.diagnosis, reason, panels, _metrics_table(rows))


def diagnosis_reason(data: ReportData) -> str:
    """Why the run has its diagnosis, with rates that no two runs share; may be empty."""
    record = data.provenance.get("pretrain")
    return str(record.training_summary.get("reason", "")) if record else ""


def _metrics_table(rows: Sequence[MetricValues]) -> Table:
    """The last value of every metric, and what it measures."""
    logged = dict.fromkeys(name for row in rows for name in row)
    kinds = list(METRICS)
    known = [name for name in logged if name.partition("/")[0] in METRICS]
    signs = sorted(known, key=lambda name: kinds.index(name.partition("/")[0]))
    last = {sign: values[-1] for sign in signs if (values := metric_series(rows, sign))}
    cells = [(sign, f"{value:.4g}", metric_text(sign)) for sign, value in last.items()]
    return Table(
        "Metrics at the end of pretraining", ("metric", "value", "meaning"), cells, can_wrap=True
    )
